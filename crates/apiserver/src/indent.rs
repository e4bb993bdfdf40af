//! JSON with a line for each member, as Go's `json.MarshalIndent` writes it with two spaces. Works on pieces, without
//! reading the whole.

/// The state between two pieces.
#[derive(Debug, Default)]
pub(crate) struct Indent {
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// An object or list has begun, and it is not known yet whether anything is in it.
    opened: bool,
}

impl Indent {
    /// Takes the next piece of compact JSON and adds to `out`.
    pub(crate) fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() * 2);
        for &byte in piece {
            if self.quoted {
                out.push(byte);
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.quoted = false,
                    _ => {}
                }
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            let opened = std::mem::take(&mut self.opened);
            let closes = matches!(byte, b'}' | b']');
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            // What is empty stays on its line.
            if opened != closes {
                self.line(out);
            }
            out.push(byte);
            match byte {
                b'{' | b'[' => {
                    self.depth += 1;
                    self.opened = true;
                }
                b',' => self.line(out),
                b':' => out.push(b' '),
                b'"' => self.quoted = true,
                _ => {}
            }
        }
    }

    /// Ends the text.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.push(b'\n');
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * self.depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn indented(text: &str, piece: usize) -> String {
        let (mut indent, mut out) = (Indent::default(), Vec::new());
        for piece in text.as_bytes().chunks(piece) {
            indent.write(piece, &mut out);
        }
        indent.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_writes_what_serde_json_writes_in_pieces_of_any_size() {
        let text = r#"{"a":[],"b":{},"c":[1,{"d":"x\"}[,:"}],"e":null,"f":[[[]]],"g":"é"}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let expected = format!("{}\n", serde_json::to_string_pretty(&value).unwrap());
        for piece in 1..text.len() {
            assert_eq!(indented(text, piece), expected);
        }
        assert_eq!(indented("{\"a\":1}\n", 3), "{\n  \"a\": 1\n}\n");
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in ".{0,60}", piece in 1_usize..9) {
            let (mut indent, mut out) = (Indent::default(), Vec::new());
            for piece in text.as_bytes().chunks(piece) {
                indent.write(piece, &mut out);
            }
        }
    }
}
