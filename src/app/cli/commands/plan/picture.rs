//! Picture of a plan: senders on the left, receivers on the right, and bytes between them as bands.

use std::collections::{BTreeMap, BTreeSet};

use svg::{SvgDocument, SvgElement, TextAnchor, rounded};

use crate::core::master::roster::Roster;
use crate::core::plan::bound::FullPart;
use crate::core::plan::{Plan, PlanProblem};
use crate::core::units::{NodeIx, human_bytes, printable};

/// Data for a picture.
pub(super) struct PlanPicture {
    pub(super) title: String,
    /// Lines below the picture.
    pub(super) captions: Vec<String>,
    pub(super) nodes: Vec<PictureNode>,
    pub(super) links: Vec<PictureLink>,
}

pub(super) struct PictureNode {
    pub(super) name: String,
    /// Payload rate in either direction.
    pub(super) bytes_per_second: f64,
    pub(super) is_bottleneck: bool,
}

/// Bytes from one node to another, on any sides.
pub(super) struct PictureLink {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) bytes: f64,
    pub(super) is_bottleneck: bool,
}

impl PlanPicture {
    /// Creates the picture of `plan`.
    pub(super) fn new(
        id: &str,
        roster: &Roster,
        problem: &PlanProblem,
        plan: &Plan,
        captions: Vec<String>,
    ) -> PlanPicture {
        let mut bytes: BTreeMap<(NodeIx, NodeIx), f64> = BTreeMap::new();
        for planned in &plan.planned {
            let size = planned.segment.span.bytes() as f64;
            for &receiver in &planned.segment.receivers {
                for (sender, weight) in planned.senders_for(receiver) {
                    *bytes.entry((sender, receiver)).or_insert(0.0) += size * weight;
                }
            }
        }
        let inside: f64 =
            bytes.iter().filter(|((from, to), _)| from == to).map(|(_, bytes)| bytes).sum();
        // Rounding leaves up to a millionth of a weight.
        bytes.retain(|(from, to), bytes| from != to && *bytes >= 1.0);
        let parts: BTreeSet<FullPart> = plan.bound.parts.iter().copied().collect();
        let is_part = |part: FullPart| parts.contains(&part);
        let node = |(node, capacity): (NodeIx, &crate::core::plan::NodeCapacity)| PictureNode {
            name: roster.get(node).address.to_string(),
            bytes_per_second: capacity.send_bytes_per_second,
            is_bottleneck: is_part(FullPart::Sender(node))
                || is_part(FullPart::Receiver(node))
                || capacity.reads.is_some_and(|store| is_part(FullPart::Read(store)))
                || capacity.writes.is_some_and(|store| is_part(FullPart::Written(store))),
        };
        let link = |((from, to), bytes): ((NodeIx, NodeIx), f64)| PictureLink {
            from: from.at(),
            to: to.at(),
            bytes,
            is_bottleneck: is_part(FullPart::Link(from, to)),
        };
        let mut all = vec![
            format!(
                "predicted {:.3} s by these weights alone ({})",
                plan.predicted_seconds,
                plan.scheduler.name()
            ),
            format!("bound {:.3} s, set by {}", plan.bound.seconds, plan.bound.bottleneck),
        ];
        if inside >= 1.0 {
            all.push(format!("{} more are copied inside their nodes", human_bytes(inside as u64)));
        }
        all.extend(captions);
        PlanPicture {
            title: format!("{id}: {}", human_bytes(plan.wanted_bytes())),
            captions: all,
            nodes: (0..).map(NodeIx).zip(&problem.nodes).map(node).collect(),
            links: bytes.into_iter().map(link).collect(),
        }
    }

    /// Returns one SVG document without scripts, fonts or other external parts.
    pub(super) fn svg(&self) -> String {
        let layout = PictureLayout::new(self);
        let mut captions = self.captions.clone();
        captions.extend(layout.left_out());
        let height = layout.bottom + 24.0 + CAPTION_LINE * captions.len() as f64;
        let title = printable(&self.title);
        let mut page = SvgDocument::new((WIDTH, height.round()), 12, &title);
        let heading = SvgElement::text((WIDTH / 2.0, 26.0), TextAnchor::Middle, &title);
        page.push(heading.set("font-size", 16).set("fill", "#222"));
        layout.draw(&mut page);
        for (at, caption) in captions.iter().enumerate() {
            let y = layout.bottom + 24.0 + CAPTION_LINE * at as f64;
            let caption = SvgElement::text((20.0, y), TextAnchor::Start, &printable(caption));
            page.push(caption.set("fill", "#222"));
        }
        page.finish()
    }
}

/// A bar for one node, or for several.
struct NodeBar {
    names: Vec<usize>,
    is_right: bool,
    /// Bytes at its left and right edge.
    left: f64,
    right: f64,
    sent: f64,
    received: f64,
    y: f64,
    /// Start of the next band at each edge.
    next: [f64; 2],
}

/// A link between bars.
struct LinkBand {
    from: usize,
    to: usize,
    bytes: f64,
    is_bottleneck: bool,
}

struct PictureLayout<'a> {
    picture: &'a PlanPicture,
    bars: Vec<NodeBar>,
    bands: Vec<LinkBand>,
    pixels_a_byte: f64,
    bottom: f64,
    /// Omitted bands, and their bytes.
    hidden: (usize, f64),
}

impl<'a> PictureLayout<'a> {
    fn new(picture: &'a PlanPicture) -> PictureLayout<'a> {
        let (mut sent, mut received) =
            (vec![0.0; picture.nodes.len()], vec![0.0; picture.nodes.len()]);
        for link in &picture.links {
            sent[link.from] += link.bytes;
            received[link.to] += link.bytes;
        }
        let (mut bars, bar_of) = bars_of(&sent, &received);
        let mut joined: BTreeMap<(usize, usize), (f64, bool)> = BTreeMap::new();
        for link in &picture.links {
            let band = joined.entry((bar_of[link.from], bar_of[link.to])).or_default();
            *band = (band.0 + link.bytes, band.1 | link.is_bottleneck);
        }
        let bands: Vec<LinkBand> = joined
            .into_iter()
            .map(|((from, to), (bytes, is_bottleneck))| LinkBand { from, to, bytes, is_bottleneck })
            .collect();
        for band in &bands {
            let is_within = bars[band.from].is_right;
            bars[band.from].sent += band.bytes;
            bars[band.to].received += band.bytes;
            // Within the right column, bands leave and enter at the outer edge.
            bars[band.from].right += band.bytes;
            *(if is_within { &mut bars[band.to].right } else { &mut bars[band.to].left }) +=
                band.bytes;
        }
        let mut layout = PictureLayout {
            picture,
            bars,
            bands,
            pixels_a_byte: 0.0,
            bottom: 0.0,
            hidden: (0, 0.0),
        };
        layout.place();
        layout
    }

    /// Places the bars: all bands have one scale, and there is room for a line of text beside each
    /// bar.
    fn place(&mut self) {
        let column = |is_right: bool| self.bars.iter().filter(move |bar| bar.is_right == is_right);
        let bytes = |is_right| column(is_right).map(NodeBar::bytes).sum::<f64>();
        let most = column(false).count().max(column(true).count());
        let height = (most as f64 * BAR_ROOM).clamp(HEIGHT_MIN, HEIGHT_MAX);
        self.pixels_a_byte = height / bytes(false).max(bytes(true)).max(1.0);
        let tall = |is_right| column(is_right).map(|bar| bar.room(self.pixels_a_byte)).sum::<f64>();
        let (heights, tallest) = ([tall(false), tall(true)], tall(false).max(tall(true)));
        self.bottom = TOP + tallest;
        // The shorter column is centred.
        let mut y = heights.map(|height| TOP + (tallest - height) / 2.0);
        for bar in &mut self.bars {
            let y = &mut y[usize::from(bar.is_right)];
            let room = bar.room(self.pixels_a_byte);
            bar.y = *y + (room - bar.bytes() * self.pixels_a_byte) / 2.0;
            bar.next = [bar.y; 2];
            *y += room;
        }
        if self.bands.len() > BANDS_MAX {
            let mut sizes: Vec<f64> = self.bands.iter().map(|band| band.bytes).collect();
            sizes.sort_by(|a, b| b.total_cmp(a));
            let hidden = &sizes[BANDS_MAX..];
            self.hidden = (hidden.len(), hidden.iter().sum());
        }
    }

    fn left_out(&self) -> Vec<String> {
        let mut said = Vec::new();
        for (is_right, side) in [(false, "senders"), (true, "receivers")] {
            let many =
                self.bars.iter().filter(|bar| bar.is_right == is_right && bar.names.len() > 1);
            said.extend(
                many.map(|bar| {
                    format!("the {} {side} with least to do share a bar", bar.names.len())
                }),
            );
        }
        if self.hidden.0 > 0 {
            let bytes = human_bytes(self.hidden.1 as u64);
            said.push(format!(
                "the {} thinnest of {} links are left out: {bytes}",
                self.hidden.0,
                self.bands.len()
            ));
        }
        said
    }

    fn draw(&self, page: &mut SvgDocument) {
        let mut next: Vec<[f64; 2]> = self.bars.iter().map(|bar| bar.next).collect();
        let mut by_size: Vec<usize> = (0..self.bands.len()).collect();
        by_size
            .sort_by(|&a, &b| self.bands[b].bytes.total_cmp(&self.bands[a].bytes).then(a.cmp(&b)));
        let shown: BTreeSet<usize> = by_size.into_iter().take(BANDS_MAX).collect();
        for (at, band) in self.bands.iter().enumerate() {
            let thickness = band.bytes * self.pixels_a_byte;
            let mut end = |bar: usize, edge: usize| {
                let middle = next[bar][edge] + thickness / 2.0;
                next[bar][edge] += thickness;
                middle
            };
            let is_within = self.bars[band.from].is_right;
            let (from, to) = (end(band.from, 1), end(band.to, usize::from(is_within)));
            if !shown.contains(&at) {
                continue;
            }
            let way = if is_within {
                let (x, bulge) = (RIGHT + BAR_WIDTH, RIGHT + BAR_WIDTH + ARC);
                curve((x, from), bulge, (x, to))
            } else {
                let x = LEFT + BAR_WIDTH;
                curve((x, from), f64::midpoint(x, RIGHT), (RIGHT, to))
            };
            let marked = |bar: usize| {
                self.bars[bar].names.iter().any(|&node| self.picture.nodes[node].is_bottleneck)
            };
            let colour = match (band.is_bottleneck, marked(band.from) || marked(band.to)) {
                (true, _) => MARK,
                (false, true) => "#f0a868",
                (false, false) => "#7d9cc0",
            };
            let told = format!(
                "{} to {}: {}",
                self.name(band.from),
                self.name(band.to),
                human_bytes(band.bytes as u64)
            );
            let link = way.set("class", "link").set("stroke", colour).set("stroke-opacity", 0.55);
            let link = link.at("stroke-width", thickness.max(BAND_MIN));
            page.push(link.child(SvgElement::new("title").words(&printable(&told))));
        }
        for bar in 0..self.bars.len() {
            self.draw_bar(page, bar);
        }
    }

    fn draw_bar(&self, page: &mut SvgDocument, at: usize) {
        let bar = &self.bars[at];
        let nodes = || bar.names.iter().map(|&node| &self.picture.nodes[node]);
        let is_marked = nodes().any(|node| node.is_bottleneck);
        let height = (bar.bytes() * self.pixels_a_byte).max(1.0);
        let x = if bar.is_right { RIGHT } else { LEFT };
        let (class, colour) = if is_marked { ("bar bottleneck", MARK) } else { ("bar", "#36526f") };
        let shape = SvgElement::rect((x, bar.y), (BAR_WIDTH, height));
        page.push(shape.set("class", class).set("fill", colour));
        let has_arcs = self.bands.iter().any(|band| self.bars[band.from].is_right);
        let (x, anchor) = match (bar.is_right, has_arcs) {
            (false, _) => (LEFT - 6.0, TextAnchor::End),
            (true, false) => (RIGHT + BAR_WIDTH + 6.0, TextAnchor::Start),
            (true, true) => (RIGHT + BAR_WIDTH + ARC * 0.75 + 6.0, TextAnchor::Start),
        };
        let y = bar.y + height / 2.0 + 4.0;
        let busiest = bar.sent.max(bar.received);
        let rate: f64 = nodes().map(|node| node.bytes_per_second).sum();
        let (weight, mark) = if is_marked { ("bold", MARK) } else { ("normal", "#222") };
        let name = SvgElement::new("tspan").set("font-weight", weight);
        let load = format!("{}, {:.2} s", human_bytes(busiest as u64), busiest / rate);
        let load = SvgElement::new("tspan").set("dx", 6).set("fill", "#666").words(&load);
        let label = SvgElement::text((x, y), anchor, "").set("fill", mark);
        page.push(label.child(name.words(&printable(&self.name(at)))).child(load));
    }

    fn name(&self, bar: usize) -> String {
        match self.bars[bar].names.as_slice() {
            &[node] => shortened(&self.picture.nodes[node].name),
            names => format!("{} others", names.len()),
        }
    }
}

/// Bars of the nodes that send or receive, on the left and on the right, and the bar of each node.
fn bars_of(sent: &[f64], received: &[f64]) -> (Vec<NodeBar>, Vec<usize>) {
    let mut bars: Vec<NodeBar> = Vec::new();
    let mut bar_of = vec![usize::MAX; sent.len()];
    for is_right in [false, true] {
        let here =
            |&node: &usize| (received[node] > 0.0) == is_right && sent[node] + received[node] > 0.0;
        let mut nodes: Vec<usize> = (0..sent.len()).filter(here).collect();
        // The busiest nodes have bars of their own, in the order of the specification; the
        // others share one.
        if nodes.len() > BARS_MAX {
            nodes.sort_by(|&a, &b| {
                (sent[b] + received[b]).total_cmp(&(sent[a] + received[a])).then(a.cmp(&b))
            });
            nodes[..BARS_MAX - 1].sort_unstable();
        }
        for (place, node) in nodes.into_iter().enumerate() {
            if place >= BARS_MAX {
                bars.last_mut().expect("earlier nodes have bars").names.push(node);
            } else {
                let (left, right, y, next) = (0.0, 0.0, 0.0, [0.0; 2]);
                bars.push(NodeBar {
                    names: vec![node],
                    is_right,
                    left,
                    right,
                    sent: 0.0,
                    received: 0.0,
                    y,
                    next,
                });
            }
            bar_of[node] = bars.len() - 1;
        }
    }
    (bars, bar_of)
}

impl NodeBar {
    /// Returns the bytes that its height represents.
    fn bytes(&self) -> f64 {
        self.left.max(self.right)
    }

    fn room(&self, pixels_a_byte: f64) -> f64 {
        (self.bytes() * pixels_a_byte + GAP).max(TEXT_LINE)
    }
}

/// Shortens a name to the width of the margin.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= NAME_LETTERS_MAX {
        return name.to_owned();
    }
    let half = NAME_LETTERS_MAX / 2;
    let (start, end) = (&letters[..half], &letters[letters.len() - half..]);
    start.iter().chain(['…'].iter()).chain(end).collect()
}

/// Returns a line from one height to another, whose bend is at `bend`.
fn curve((x, y): (f64, f64), bend: f64, (to_x, to_y): (f64, f64)) -> SvgElement {
    let (y, to_y) = (rounded(y), rounded(to_y));
    SvgElement::path(&format!("M{x} {y}C{bend} {y} {bend} {to_y} {to_x} {to_y}"))
        .set("fill", "none")
}

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 270.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 48.0;
const BAR_WIDTH: f64 = 12.0;
/// Width of bands between receivers.
const ARC: f64 = 110.0;
/// Height of a column's bars, before the gaps.
const HEIGHT_MIN: f64 = 200.0;
const HEIGHT_MAX: f64 = 700.0;
const BAR_ROOM: f64 = 30.0;
const GAP: f64 = 8.0;
const TEXT_LINE: f64 = 15.0;
const CAPTION_LINE: f64 = 18.0;
/// Thinner bands would be invisible.
const BAND_MIN: f64 = 0.4;
const NAME_LETTERS_MAX: usize = 22;
/// Limit on bars in a column, which fit a page.
const BARS_MAX: usize = 40;
/// Limit on bands; more are a grey area.
const BANDS_MAX: usize = 600;
const MARK: &str = "#c8501e";

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: String) -> PictureNode {
        PictureNode { name, bytes_per_second: 1e9, is_bottleneck: false }
    }

    fn picture(senders: usize, receivers: usize) -> PlanPicture {
        let link =
            |from: usize, to: usize| PictureLink { from, to, bytes: 1e9, is_bottleneck: false };
        let links = (0..senders)
            .flat_map(|from| (senders..senders + receivers).map(move |to| link(from, to)));
        PlanPicture {
            title: "a & b".into(),
            captions: vec!["bound 1 s".into()],
            nodes: (0..senders + receivers).map(|at| node(format!("n{at}:1"))).collect(),
            links: links.collect(),
        }
    }

    fn count(svg: &str, what: &str) -> usize {
        svg.matches(what).count()
    }

    #[test]
    fn every_node_and_link_of_a_small_plan_is_there_and_the_bottleneck_is_marked() {
        let mut picture = picture(2, 2);
        picture.nodes[1].is_bottleneck = true;
        let svg = picture.svg();
        assert_eq!(
            (count(&svg, r#"class="link""#), count(&svg, r#"class="bar""#)),
            (4, 3),
            "{svg}"
        );
        assert_eq!(count(&svg, r#"class="bar bottleneck""#), 1);
        assert!(svg.contains("a &amp; b") && svg.contains("bound 1 s") && svg.contains("n3:1"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn what_a_large_plan_leaves_out_is_said() {
        let svg = picture(45, 40).svg();
        assert_eq!((count(&svg, r#"class="link""#), count(&svg, r#"class="bar""#)), (600, 80));
        assert!(svg.contains("the 6 senders with least to do share a bar"), "{svg}");
        assert!(svg.contains("the 1000 thinnest of 1600 links are left out"));
    }

    #[test]
    fn a_receiver_that_feeds_another_is_drawn_within_its_column() {
        let mut picture = picture(1, 2);
        picture.links[1].from = 1;
        let svg = picture.svg();
        assert_eq!((count(&svg, r#"class="link""#), count(&svg, r#"class="bar""#)), (2, 3));
        assert!(svg.contains(&format!("C{}", RIGHT + BAR_WIDTH + ARC)), "{svg}");
    }

    #[test]
    fn nothing_to_move_is_a_picture_too() {
        let svg = PlanPicture { links: Vec::new(), ..picture(1, 1) }.svg();
        assert!(!svg.contains("NaN") && svg.ends_with("</svg>\n"));
    }
}
