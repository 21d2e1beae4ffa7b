//! Chart of the figures: Gbit/s over the number of NICs, beside the goodput limit of their lines.

use std::fmt::Write;

use super::figures::{BenchFigures, BenchStep};

/// Returns one SVG document without scripts, fonts or other external parts.
pub(crate) fn svg(figures: &BenchFigures) -> String {
    let chart = BarChart::of(&figures.steps);
    let mut out = String::new();
    let title = "Gbit/s of payload over NICs a node";
    line(
        &mut out,
        format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">"#
        ),
    );
    line(&mut out, format_args!("<title>{title}</title>"));
    line(&mut out, format_args!(r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>"##));
    line(
        &mut out,
        format_args!(r##"<text x="{LEFT}" y="26" font-size="16" fill="#222">{title}</text>"##),
    );
    chart.grid(&mut out);
    let limits: Vec<(u32, f64)> = figures
        .steps
        .iter()
        .filter_map(|step| Some((step.nics, step.rate.goodput_limit_gbit_per_s?)))
        .collect();
    if !limits.is_empty() {
        chart.curve(&mut out, &limits, r##"class="limit" stroke="#ccc" stroke-width="7""##);
        for &(nics, limit) in &limits {
            let (x, y) = (chart.x(nics), chart.y(limit));
            line(
                &mut out,
                format_args!(
                    r##"<path d="M{:.1} {y:.1}h28" stroke="#ccc" stroke-width="7"/>"##,
                    x - 14.0
                ),
            );
        }
    }
    let rates: Vec<(u32, f64)> =
        figures.steps.iter().map(|step| (step.nics, step.rate.gbit_per_s)).collect();
    chart.curve(&mut out, &rates, r##"class="rate" stroke="#1565c0" stroke-width="2""##);
    for step in &figures.steps {
        chart.point(&mut out, step);
    }
    legend(&mut out, !limits.is_empty());
    out.push_str("</svg>\n");
    out
}

/// Mapping of values to positions.
struct BarChart {
    nics_max: u32,
    /// Distance between two grid lines in Gbit/s; five of them fill the chart.
    tick: f64,
}

impl BarChart {
    fn of(steps: &[BenchStep]) -> BarChart {
        let tops = steps.iter().map(|step| {
            step.rate.gbit_per_s.max(step.rate.goodput_limit_gbit_per_s.unwrap_or(0.0))
        });
        let top = tops.fold(0.0, f64::max);
        let nics_max = steps.iter().map(|step| step.nics).max().unwrap_or(1);
        BarChart { nics_max, tick: round_up(top / TICKS as f64) }
    }

    /// Returns the middle of the column for a number of NICs.
    fn x(&self, nics: u32) -> f64 {
        LEFT + (RIGHT - LEFT) * (f64::from(nics) - 0.5) / f64::from(self.nics_max)
    }

    fn y(&self, gbit_per_s: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * gbit_per_s / (self.tick * TICKS as f64)
    }

    fn grid(&self, out: &mut String) {
        for tick in 0..=TICKS {
            let value = self.tick * tick as f64;
            let y = self.y(value);
            let stroke = if tick == 0 { "#444" } else { "#ddd" };
            line(out, format_args!(r#"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="{stroke}"/>"#));
            let (x, below) = (LEFT - 8.0, y + 4.5);
            let label = plain(value);
            line(
                out,
                format_args!(
                    r##"<text x="{x}" y="{below:.1}" text-anchor="end" fill="#444">{label}</text>"##
                ),
            );
        }
        for nics in 1..=self.nics_max {
            let (x, y) = (self.x(nics), BOTTOM + 20.0);
            line(
                out,
                format_args!(
                    r##"<text x="{x:.1}" y="{y}" text-anchor="middle" fill="#444">{nics}</text>"##
                ),
            );
        }
        let (x, y) = (f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0);
        line(
            out,
            format_args!(
                r##"<text x="{x}" y="{y}" text-anchor="middle" fill="#444">NICs a node</text>"##
            ),
        );
    }

    fn curve(&self, out: &mut String, points: &[(u32, f64)], how: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|&(nics, value)| format!("{:.1},{:.1}", self.x(nics), self.y(value)))
            .collect();
        line(out, format_args!(r#"<polyline {how} fill="none" points="{}"/>"#, points.join(" ")));
    }

    fn point(&self, out: &mut String, step: &BenchStep) {
        let (x, y) = (self.x(step.nics), self.y(step.rate.gbit_per_s));
        line(
            out,
            format_args!(
                r##"<circle class="point" cx="{x:.1}" cy="{y:.1}" r="4.5" fill="#1565c0"/>"##
            ),
        );
        let share = step
            .rate
            .goodput_efficiency
            .map_or_else(String::new, |part| format!(" ({:.1} %)", part * 100.0));
        let (value, below) = (plain(step.rate.gbit_per_s), y + 20.0);
        line(
            out,
            format_args!(
                r##"<text x="{x:.1}" y="{below:.1}" text-anchor="middle" fill="#1565c0" paint-order="stroke" stroke="#fff" stroke-width="4">{value}{share}</text>"##
            ),
        );
    }
}

fn legend(out: &mut String, has_limit: bool) {
    let (x, text) = (RIGHT - 250.0, RIGHT - 218.0);
    line(out, format_args!(r##"<path d="M{x} 22h24" stroke="#1565c0" stroke-width="2"/>"##));
    line(out, format_args!(r##"<text x="{text}" y="26" fill="#222">measured</text>"##));
    if has_limit {
        let (x, text) = (x + 110.0, text + 110.0);
        line(out, format_args!(r##"<path d="M{x} 22h24" stroke="#ccc" stroke-width="7"/>"##));
        line(out, format_args!(r##"<text x="{text}" y="26" fill="#222">goodput limit</text>"##));
    }
}

fn line(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string never fails.
    let _ = writeln!(out, "{what}");
}

/// Returns the next of 1, 2, 2.5, 5 and their powers of ten.
fn round_up(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
    // Values up to half a millionth above a step count as the step: the power of ten is not exact.
    steps.into_iter().find(|step| *step * 1.000_000_5 >= value).unwrap_or(10.0 * power)
}

/// Formats a number with three significant digits and without trailing zeros.
fn plain(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        3
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 365.0;
const TICKS: usize = 5;

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
        assert_eq!(picture.matches("<circle class=\"point\"").count(), 4);
        let curve =
            picture.split("class=\"rate\"").nth(1).and_then(|rest| rest.split("points=\"").nth(1));
        assert_eq!(
            curve.and_then(|rest| rest.split('"').next()).map(|points| points.split(' ').count()),
            Some(4)
        );
        assert!(
            picture.contains("class=\"limit\"") && picture.contains("14 (70.5 %)"),
            "{picture}"
        );
        // The limit is 19.9 Gbit/s; a fifth of it is rounded up to 5, so 14 is at 14/25 of the
        // chart's height.
        assert!(picture.contains("cx=\"148.8\" cy=\"188.6\""), "{picture}");
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

    #[test]
    fn grids_have_round_numbers() {
        for (value, round) in
            [(0.19, "0.2"), (2.8, "5"), (2.1, "2.5"), (1.0, "1"), (70.0, "100"), (0.0, "1")]
        {
            assert_eq!(plain(round_up(value)), round, "{value}");
        }
    }
}
