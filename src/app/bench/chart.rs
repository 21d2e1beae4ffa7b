//! Chart of the figures: Gbit/s over the number of NICs, beside the goodput limit of their lines.

use svg::{SvgDocument, SvgElement, TextAnchor, ValueAxis, plain};

use super::figures::{BenchFigures, BenchStep};

/// Returns one SVG document without scripts, fonts or other external parts.
pub(crate) fn svg(figures: &BenchFigures) -> String {
    let chart = BenchChart::of(&figures.steps);
    let title = "Gbit/s of payload over NICs a node";
    let mut page = SvgDocument::new((WIDTH, HEIGHT), 13, title);
    let heading = SvgElement::text((LEFT, 26.0), TextAnchor::Start, title);
    page.push(heading.set("font-size", 16).set("fill", "#222"));
    chart.grid(&mut page);
    let limits: Vec<(u32, f64)> = figures
        .steps
        .iter()
        .filter_map(|step| Some((step.nics, step.rate.goodput_limit_gbit_per_s?)))
        .collect();
    if !limits.is_empty() {
        page.push(styled(chart.curve(&limits).set("class", "limit"), LIMIT));
        for &(nics, limit) in &limits {
            let (x, y) = (chart.x(nics), chart.axis.y(limit));
            page.push(styled(SvgElement::polyline(&[(x - 14.0, y), (x + 14.0, y)]), LIMIT));
        }
    }
    let rates: Vec<(u32, f64)> =
        figures.steps.iter().map(|step| (step.nics, step.rate.gbit_per_s)).collect();
    page.push(styled(chart.curve(&rates).set("class", "rate"), RATE));
    for step in &figures.steps {
        chart.point(&mut page, step);
    }
    legend(&mut page, RIGHT - 250.0, RATE, "measured");
    if !limits.is_empty() {
        legend(&mut page, RIGHT - 140.0, LIMIT, "goodput limit");
    }
    page.finish()
}

/// Mapping of values to positions.
struct BenchChart {
    nics_max: u32,
    axis: ValueAxis,
}

impl BenchChart {
    fn of(steps: &[BenchStep]) -> BenchChart {
        let tops = steps.iter().map(|step| {
            step.rate.gbit_per_s.max(step.rate.goodput_limit_gbit_per_s.unwrap_or(0.0))
        });
        let nics_max = steps.iter().map(|step| step.nics).max().unwrap_or(1);
        let axis = ValueAxis::new(tops.fold(0.0, f64::max), TICKS_MAX, (BOTTOM, TOP));
        BenchChart { nics_max, axis }
    }

    /// Returns the middle of the column for a number of NICs.
    fn x(&self, nics: u32) -> f64 {
        LEFT + (RIGHT - LEFT) * (f64::from(nics) - 0.5) / f64::from(self.nics_max)
    }

    fn grid(&self, page: &mut SvgDocument) {
        self.axis.draw(page, (LEFT, RIGHT));
        let mut below = |x: f64, y: f64, words: &str| {
            page.push(SvgElement::text((x, BOTTOM + y), TextAnchor::Middle, words));
        };
        for nics in 1..=self.nics_max {
            below(self.x(nics), 20.0, &nics.to_string());
        }
        below(f64::midpoint(LEFT, RIGHT), 40.0, "NICs a node");
    }

    fn curve(&self, points: &[(u32, f64)]) -> SvgElement {
        let points: Vec<(f64, f64)> =
            points.iter().map(|&(nics, value)| (self.x(nics), self.axis.y(value))).collect();
        SvgElement::polyline(&points)
    }

    fn point(&self, page: &mut SvgDocument, step: &BenchStep) {
        let (x, y) = (self.x(step.nics), self.axis.y(step.rate.gbit_per_s));
        page.push(SvgElement::circle((x, y), 4.5).set("class", "point").set("fill", RATE.0));
        let share = step
            .rate
            .goodput_efficiency
            .map_or_else(String::new, |part| format!(" ({:.1} %)", part * 100.0));
        let words = format!("{}{share}", plain(step.rate.gbit_per_s));
        let label = SvgElement::text((x, y + 20.0), TextAnchor::Middle, &words);
        let outlined = label.set("paint-order", "stroke").set("stroke", "#fff");
        page.push(outlined.set("stroke-width", 4).set("fill", RATE.0));
    }
}

/// Adds a line and its name above the chart.
fn legend(page: &mut SvgDocument, x: f64, look: (&str, u32), name: &str) {
    page.push(styled(SvgElement::polyline(&[(x, 22.0), (x + 24.0, 22.0)]), look));
    page.push(SvgElement::text((x + 32.0, 26.0), TextAnchor::Start, name).set("fill", "#222"));
}

fn styled(curve: SvgElement, (colour, width): (&str, u32)) -> SvgElement {
    curve.set("stroke", colour).set("stroke-width", width)
}

/// Colour and width of the curves.
const RATE: (&str, u32) = ("#1565c0", 2);
const LIMIT: (&str, u32) = ("#ccc", 7);
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 365.0;
const TICKS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::bench::figures::tests::report;

    fn figures(steps: Vec<BenchStep>) -> BenchFigures {
        BenchFigures {
            seconds_asked: 1.0,
            check: "crc64".into(),
            steps,
            threads_per_nic: None,
            error: None,
        }
    }

    #[test]
    fn every_step_is_a_point_of_the_curve() {
        let steps = (1..=4).map(|nics| BenchStep::new(nics, &report(Some(10.0)), None)).collect();
        let picture = svg(&figures(steps));
        assert_eq!(picture.matches("<circle ").count(), 4);
        let curve = picture.lines().find(|line| line.contains("class=\"rate\""));
        let points = curve.and_then(|line| line.split("points=\"").nth(1)?.split('"').next());
        assert_eq!(points.map(|points| points.split(' ').count()), Some(4));
        assert!(
            picture.contains("class=\"limit\"") && picture.contains("14 (70.5 %)"),
            "{picture}"
        );
        // The limit is 19.9 Gbit/s; a fifth of it is rounded up to 5 and four of those suffice, so
        // 14 is at 14/20 of the chart's height.
        assert!(picture.contains("cx=\"148.75\" cy=\"144.5\""), "{picture}");
    }

    #[test]
    fn without_a_line_rate_there_is_no_limit_and_without_steps_no_point() {
        let picture = svg(&figures(vec![BenchStep::new(1, &report(None), None)]));
        assert!(!picture.contains("limit") && picture.contains(">14</text>"), "{picture}");
        let empty = svg(&figures(Vec::new()));
        assert!(
            empty.starts_with("<svg ") && empty.ends_with("</svg>\n") && !empty.contains("NaN"),
            "{empty}"
        );
    }
}
