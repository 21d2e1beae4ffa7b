//! Charts of figures: curves over one axis, as an SVG document without external parts.

use std::fmt::Write;

/// A chart of curves.
pub(super) struct CurveChart {
    pub(super) title: &'static str,
    pub(super) x_title: &'static str,
    pub(super) y_title: &'static str,
    /// Labels below the axis, with their positions.
    pub(super) labels: Vec<(f64, String)>,
    pub(super) curves: Vec<Curve>,
}

/// One curve, with a mark at each of its points. Later ones lie above earlier ones.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) look: CurveStyle,
    pub(super) points: Vec<(f64, f64)>,
}

/// Style of a curve, distinguishable in black and white, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CurveStyle {
    /// Broad and pale, for a limit.
    Limit,
    /// Thin, without marks.
    Thin,
    Disc,
    Circle,
    Triangle,
    Square,
}

impl CurveChart {
    /// Returns the chart as one document.
    pub(super) fn svg(&self) -> String {
        let paper = CurveLayout::of(self);
        let (title, middle, centre) =
            (self.title, f64::midpoint(LEFT, RIGHT), f64::midpoint(TOP, BOTTOM));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#444\">\n<title>{title}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" fill=\"#222\">{title}</text>\n"
        );
        for tick in 0..=paper.ticks {
            let value = paper.tick * f64::from(tick);
            let (y, stroke) = (paper.y(value), if tick == 0 { "#444" } else { "#ddd" });
            put(&mut out, format_args!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{stroke}\"/>"));
            text(&mut out, (LEFT - 8.0, y + 4.5), "end", &plain(value));
        }
        for (x, label) in &self.labels {
            let x = paper.x(*x);
            put(&mut out, format_args!("<path d=\"M{x:.1} {BOTTOM}v5\" stroke=\"#444\"/>"));
            text(&mut out, (x, BOTTOM + 20.0), "middle", label);
        }
        text(&mut out, (middle, BOTTOM + 42.0), "middle", self.x_title);
        put(&mut out, format_args!("<g transform=\"rotate(-90 18 {centre})\">"));
        text(&mut out, (18.0, centre), "middle", self.y_title);
        out.push_str("</g>\n");
        for curve in &self.curves {
            let points: Vec<(f64, f64)> =
                curve.points.iter().map(|&(x, y)| (paper.x(x), paper.y(y))).collect();
            curve.look.draw(&mut out, &points);
        }
        for (row, curve) in self.curves.iter().rev().enumerate() {
            let y = TOP + 12.0 + 20.0 * row as f64;
            curve.look.draw(&mut out, &[(RIGHT + 16.0, y), (RIGHT + 44.0, y)]);
            text(&mut out, (RIGHT + 54.0, y + 4.5), "start", &curve.name);
        }
        out + "</svg>\n"
    }
}

impl CurveStyle {
    fn draw(self, out: &mut String, points: &[(f64, f64)]) {
        let (color, width, dashes) = match self {
            CurveStyle::Limit => ("#ccc", 7, ""),
            CurveStyle::Thin => ("#888", 1, "5 4"),
            CurveStyle::Disc => ("#1565c0", 2, ""),
            CurveStyle::Circle => ("#00838f", 2, ""),
            CurveStyle::Triangle => ("#c62828", 2, ""),
            CurveStyle::Square => ("#ef6c00", 2, ""),
        };
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let style = format!("stroke=\"{color}\" stroke-width=\"{width}\"");
        let line = line.join(" ");
        put(
            out,
            format_args!(
                "<polyline points=\"{line}\" fill=\"none\" {style} stroke-dasharray=\"{dashes}\"/>"
            ),
        );
        for (x, y) in points {
            match self {
                CurveStyle::Limit | CurveStyle::Thin => {}
                CurveStyle::Disc => {
                    put(
                        out,
                        format_args!(
                            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{color}\"/>"
                        ),
                    );
                }
                CurveStyle::Circle => {
                    put(
                        out,
                        format_args!(
                            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6.5\" fill=\"none\" {style}/>"
                        ),
                    );
                }
                CurveStyle::Triangle => {
                    let top = y - 6.0;
                    put(
                        out,
                        format_args!("<path d=\"M{x:.1} {top:.1}l6 10h-12z\" fill=\"{color}\"/>"),
                    );
                }
                CurveStyle::Square => {
                    let (left, top) = (x - 4.5, y - 4.5);
                    put(
                        out,
                        format_args!(
                            "<path d=\"M{left:.1} {top:.1}h9v9h-9z\" fill=\"#fff\" {style}/>"
                        ),
                    );
                }
            }
        }
    }
}

/// Mapping of values to positions.
struct CurveLayout {
    x_first: f64,
    x_last: f64,
    /// The distance between two lines of the grid, and how many there are above the axis.
    tick: f64,
    ticks: u32,
}

impl CurveLayout {
    fn of(chart: &CurveChart) -> CurveLayout {
        let top = chart
            .curves
            .iter()
            .flat_map(|curve| &curve.points)
            .map(|point| point.1)
            .fold(0.0, f64::max);
        let tick = round_up(top / TICKS_MAX);
        let xs = || chart.labels.iter().map(|label| label.0);
        let (x_first, x_last) =
            (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
        CurveLayout { x_first, x_last, tick, ticks: (top / tick).ceil().max(1.0) as u32 }
    }

    /// The first point stands a little to the right of the axis; one that is alone stands there
    /// too.
    fn x(&self, x: f64) -> f64 {
        let part = if self.x_last > self.x_first {
            (x - self.x_first) / (self.x_last - self.x_first)
        } else {
            0.0
        };
        LEFT + 24.0 + (RIGHT - LEFT - 48.0) * part
    }

    fn y(&self, y: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * y / (self.tick * f64::from(self.ticks))
    }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    put(
        out,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"),
    );
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(out, "{what}").expect("memory takes it");
}

/// The next of 1, 2, 5 and their tenfolds.
fn round_up(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    // Half a millionth more than a step is that step: the power of ten is not exact.
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step * 1.000_000_5 >= value)
        .unwrap_or(10.0 * power)
}

/// A number without idle zeros.
fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 600.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 340.0;
const TICKS_MAX: f64 = 7.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        let labels = points.iter().map(|(x, _)| (*x, format!("at {x}"))).collect();
        let curves = vec![Curve { name: "ours".into(), look: CurveStyle::Disc, points }];
        CurveChart { title: "Title", x_title: "pairs", y_title: "Gbit/s", labels, curves }.svg()
    }

    #[test]
    fn every_point_has_its_place_and_its_label() {
        let picture = chart(vec![(1.0, 0.0), (2.0, 1.4), (3.0, 0.7)]);
        // Three points, and two marks in the legend.
        assert_eq!(picture.matches("<circle").count(), 5);
        // 1.4 is the top of seven lines a fifth apart; the middle of three points stands in the
        // middle.
        assert!(picture.contains("points=\"98.0,340.0 337.0,50.0 576.0,195.0\""), "{picture}");
        for words in [">at 2<", ">pairs<", ">Gbit/s<", ">ours<", ">1.4<"] {
            assert!(picture.contains(words), "{words}: {picture}");
        }
    }

    #[test]
    fn one_point_or_none_is_a_picture_too() {
        for points in [vec![], vec![(1.0, 0.0)], vec![(4.0, 3.0)]] {
            let picture = chart(points);
            assert!(
                picture.ends_with("</svg>\n")
                    && !picture.contains("NaN")
                    && !picture.contains("inf"),
                "{picture}"
            );
        }
    }
}
