//! Documents and their elements.

use std::fmt::{Display, Write};

/// A document that is being written.
#[derive(Debug)]
pub struct SvgDocument {
    text: String,
}

impl SvgDocument {
    /// Creates a white page. Viewers show `title` as the name of the document; text is
    /// `font_pixels` high and dark grey where an element does not say otherwise.
    #[must_use]
    pub fn new((width, height): (f64, f64), font_pixels: u32, title: &str) -> SvgDocument {
        let (wide, high) = (rounded(width), rounded(height));
        let head = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" \
             viewBox=\"0 0 {wide} {high}\" font-family=\"sans-serif\" font-size=\"{font_pixels}\" \
             fill=\"#444\">\n"
        );
        let mut document = SvgDocument { text: head };
        document.push(SvgElement::new("title").words(title));
        document.push(SvgElement::rect((0.0, 0.0), (width, height)).set("fill", "#fff"));
        document
    }

    /// Appends an element. Later ones lie above earlier ones.
    pub fn push(&mut self, element: SvgElement) {
        self.text += &element.finish();
        self.text.push('\n');
    }

    /// Returns the whole document.
    #[must_use]
    pub fn finish(self) -> String {
        self.text + "</svg>\n"
    }
}

/// One element, its attributes and its content.
#[derive(Debug)]
pub struct SvgElement {
    name: &'static str,
    attributes: String,
    content: String,
}

/// End of a text that is at its position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextAnchor {
    /// The text begins there.
    Start,
    /// The text is centred.
    Middle,
    /// The text ends there.
    End,
}

impl SvgElement {
    /// Creates an element without attributes.
    #[must_use]
    pub fn new(name: &'static str) -> SvgElement {
        SvgElement { name, attributes: String::new(), content: String::new() }
    }

    /// Creates a rectangle by its upper left corner and its size.
    #[must_use]
    pub fn rect((x, y): (f64, f64), (width, height): (f64, f64)) -> SvgElement {
        let corner = SvgElement::new("rect").at("x", x).at("y", y);
        corner.at("width", width).at("height", height)
    }

    /// Creates a circle.
    #[must_use]
    pub fn circle((x, y): (f64, f64), radius: f64) -> SvgElement {
        SvgElement::new("circle").at("cx", x).at("cy", y).at("r", radius)
    }

    /// Creates a straight line in a colour.
    #[must_use]
    pub fn line(from: (f64, f64), to: (f64, f64), stroke: &str) -> SvgElement {
        let start = SvgElement::new("line").at("x1", from.0).at("y1", from.1);
        start.at("x2", to.0).at("y2", to.1).set("stroke", stroke)
    }

    /// Creates a curve through points, which encloses nothing.
    #[must_use]
    pub fn polyline(points: &[(f64, f64)]) -> SvgElement {
        let points: Vec<String> =
            points.iter().map(|&(x, y)| format!("{},{}", rounded(x), rounded(y))).collect();
        SvgElement::new("polyline").set("points", points.join(" ")).set("fill", "none")
    }

    /// Creates a path from the commands of its `d` attribute.
    #[must_use]
    pub fn path(commands: &str) -> SvgElement {
        SvgElement::new("path").set("d", commands)
    }

    /// Creates a line of text whose baseline is at `y`.
    #[must_use]
    pub fn text((x, y): (f64, f64), anchor: TextAnchor, words: &str) -> SvgElement {
        let anchor = match anchor {
            TextAnchor::Start => "start",
            TextAnchor::Middle => "middle",
            TextAnchor::End => "end",
        };
        SvgElement::new("text").at("x", x).at("y", y).set("text-anchor", anchor).words(words)
    }

    /// Sets an attribute.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Display) -> SvgElement {
        let value = escaped(&value.to_string());
        // Writing to a string never fails.
        let _ = write!(self.attributes, " {name}=\"{value}\"");
        self
    }

    /// Sets a position or a size.
    #[must_use]
    pub fn at(self, name: &str, pixels: f64) -> SvgElement {
        self.set(name, rounded(pixels))
    }

    /// Appends text to the content.
    #[must_use]
    pub fn words(mut self, words: &str) -> SvgElement {
        self.content += &escaped(words);
        self
    }

    /// Appends an element to the content.
    #[must_use]
    pub fn child(mut self, element: SvgElement) -> SvgElement {
        self.content += &element.finish();
        self
    }

    fn finish(self) -> String {
        let SvgElement { name, attributes, content } = self;
        if content.is_empty() {
            format!("<{name}{attributes}/>")
        } else {
            format!("<{name}{attributes}>{content}</{name}>")
        }
    }
}

/// Rounds to a hundredth of a pixel.
#[must_use]
pub fn rounded(pixels: f64) -> f64 {
    // Negative zero becomes zero.
    (pixels * 100.0).round() / 100.0 + 0.0
}

/// Escapes text for content and attributes. Characters that XML does not allow are replaced.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\0'..='\x08' | '\x0b'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {
                safe.push(char::REPLACEMENT_CHARACTER);
            }
            _ => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_its_elements_in_order() {
        let mut document = SvgDocument::new((200.0, 99.999), 12, "a & b");
        document.push(SvgElement::line((1.0, 2.0), (3.456, -0.001), "#ddd"));
        document.push(
            SvgElement::new("g")
                .child(SvgElement::polyline(&[(0.0, 1.5), (2.0, 3.0)]))
                .set("id", 7),
        );
        assert_eq!(
            document.finish(),
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"200\" height=\"100\" \
             viewBox=\"0 0 200 100\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#444\">\n\
             <title>a &amp; b</title>\n\
             <rect x=\"0\" y=\"0\" width=\"200\" height=\"100\" fill=\"#fff\"/>\n\
             <line x1=\"1\" y1=\"2\" x2=\"3.46\" y2=\"0\" stroke=\"#ddd\"/>\n\
             <g id=\"7\"><polyline points=\"0,1.5 2,3\" fill=\"none\"/></g>\n</svg>\n"
        );
    }

    #[test]
    fn foreign_text_stays_text() {
        let text = SvgElement::text((0.0, 0.0), TextAnchor::End, "</text><script>\x1b\n\u{ffff}é");
        assert_eq!(
            text.set("class", "\"x").finish(),
            "<text x=\"0\" y=\"0\" text-anchor=\"end\" class=\"&quot;x\">\
             &lt;/text&gt;&lt;script&gt;\u{fffd}\n\u{fffd}é</text>"
        );
    }
}
