//! Charts of figures: curves over one axis, as an SVG document without external parts.

use svg::{SvgDocument, SvgElement, TextAnchor, ValueAxis, rounded};

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
        let layout = CurveLayout::of(self);
        let (middle, centre) = (f64::midpoint(LEFT, RIGHT), f64::midpoint(TOP, BOTTOM));
        let mut page = SvgDocument::new((WIDTH, HEIGHT), 13, self.title);
        let heading = SvgElement::text((LEFT, 26.0), TextAnchor::Start, self.title);
        page.push(heading.set("font-size", 16).set("fill", "#222"));
        layout.axis.draw(&mut page, (LEFT, RIGHT));
        for (x, label) in &self.labels {
            let x = layout.x(*x);
            page.push(SvgElement::line((x, BOTTOM), (x, BOTTOM + 5.0), "#444"));
            page.push(SvgElement::text((x, BOTTOM + 20.0), TextAnchor::Middle, label));
        }
        page.push(SvgElement::text((middle, BOTTOM + 42.0), TextAnchor::Middle, self.x_title));
        let y_title = SvgElement::text((18.0, centre), TextAnchor::Middle, self.y_title);
        page.push(y_title.set("transform", format_args!("rotate(-90 18 {centre})")));
        for curve in &self.curves {
            let points: Vec<(f64, f64)> =
                curve.points.iter().map(|&(x, y)| (layout.x(x), layout.axis.y(y))).collect();
            curve.look.draw(&mut page, &points);
        }
        for (row, curve) in self.curves.iter().rev().enumerate() {
            let y = TOP + 12.0 + 20.0 * row as f64;
            curve.look.draw(&mut page, &[(RIGHT + 16.0, y), (RIGHT + 44.0, y)]);
            page.push(SvgElement::text((RIGHT + 54.0, y + 4.5), TextAnchor::Start, &curve.name));
        }
        page.finish()
    }
}

impl CurveStyle {
    fn draw(self, page: &mut SvgDocument, points: &[(f64, f64)]) {
        let (colour, width, dashes) = match self {
            CurveStyle::Limit => ("#ccc", 7, "none"),
            CurveStyle::Thin => ("#888", 1, "5 4"),
            CurveStyle::Disc => ("#1565c0", 2, "none"),
            CurveStyle::Circle => ("#00838f", 2, "none"),
            CurveStyle::Triangle => ("#c62828", 2, "none"),
            CurveStyle::Square => ("#ef6c00", 2, "none"),
        };
        let stroked = |shape: SvgElement| shape.set("stroke", colour).set("stroke-width", width);
        page.push(stroked(SvgElement::polyline(points)).set("stroke-dasharray", dashes));
        for &(x, y) in points {
            let mark = match self {
                CurveStyle::Limit | CurveStyle::Thin => continue,
                CurveStyle::Disc => SvgElement::circle((x, y), 4.5).set("fill", colour),
                CurveStyle::Circle => stroked(SvgElement::circle((x, y), 6.5).set("fill", "none")),
                CurveStyle::Triangle => {
                    let (x, top) = (rounded(x), rounded(y - 6.0));
                    SvgElement::path(&format!("M{x} {top}l6 10h-12z")).set("fill", colour)
                }
                CurveStyle::Square => {
                    let corner = (x - 4.5, y - 4.5);
                    stroked(SvgElement::rect(corner, (9.0, 9.0)).set("fill", "#fff"))
                }
            };
            page.push(mark);
        }
    }
}

/// Mapping of values to positions.
struct CurveLayout {
    x_first: f64,
    x_last: f64,
    axis: ValueAxis,
}

impl CurveLayout {
    fn of(chart: &CurveChart) -> CurveLayout {
        let values = chart.curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
        let xs = || chart.labels.iter().map(|label| label.0);
        let (x_first, x_last) =
            (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
        let axis = ValueAxis::new(values.fold(0.0, f64::max), TICKS_MAX, (BOTTOM, TOP));
        CurveLayout { x_first, x_last, axis }
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
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 600.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 340.0;
const TICKS_MAX: u32 = 7;

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
        assert!(picture.contains("points=\"98,340 337,50 576,195\""), "{picture}");
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
