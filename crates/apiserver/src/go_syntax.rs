//! Why JSON cannot be read, in the words of Go's `encoding/json`, which Kubernetes passes on to its clients.
//! Source: `scanner.go` of that package.

/// Nesting beyond this is refused.
const DEPTH: usize = 10_000;

/// What is wrong with the text; `None` if it is JSON.
pub(crate) fn error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.document() {
        Ok(()) => None,
        Err(Wrong::End) => Some("unexpected end of JSON input".to_owned()),
        Err(Wrong::Depth) => Some("exceeded max depth".to_owned()),
        Err(Wrong::Character(c, context)) => {
            Some(format!("invalid character {} {context}", quoted(c)))
        }
    }
}

enum Wrong {
    End,
    Depth,
    Character(u8, String),
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Object,
    Array,
}

fn quoted(c: u8) -> String {
    match c {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0x07 => "'\\a'".to_owned(),
        0x08 => "'\\b'".to_owned(),
        0x0b => "'\\v'".to_owned(),
        0x0c => "'\\f'".to_owned(),
        0x20..0x7f => format!("'{}'", char::from(c)),
        0..0x20 | 0x7f => format!("'\\x{c:02x}'"),
        // A byte is taken for a character of Latin-1.
        0x80..0xa1 | 0xad => format!("'\\u{:04x}'", u32::from(c)),
        _ => format!("'{}'", char::from(c)),
    }
}

impl Scanner<'_> {
    fn peek(&mut self) -> Result<u8, Wrong> {
        while let Some(c) = self.text.get(self.at) {
            if !matches!(c, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(*c);
            }
            self.at += 1;
        }
        Err(Wrong::End)
    }

    fn next(&mut self) -> Result<u8, Wrong> {
        let c = *self.text.get(self.at).ok_or(Wrong::End)?;
        self.at += 1;
        Ok(c)
    }

    fn document(&mut self) -> Result<(), Wrong> {
        let mut inside: Vec<Inside> = Vec::new();
        loop {
            // A value begins here.
            let c = self.peek()?;
            match c {
                b'{' => {
                    self.at += 1;
                    inside.push(Inside::Object);
                    if inside.len() > DEPTH {
                        return Err(Wrong::Depth);
                    }
                    match self.peek()? {
                        b'}' => {
                            self.at += 1;
                            inside.pop();
                        }
                        _ => {
                            self.key()?;
                            continue;
                        }
                    }
                }
                b'[' => {
                    self.at += 1;
                    inside.push(Inside::Array);
                    if inside.len() > DEPTH {
                        return Err(Wrong::Depth);
                    }
                    if self.peek()? != b']' {
                        continue;
                    }
                    self.at += 1;
                    inside.pop();
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                other => {
                    return Err(Wrong::Character(
                        other,
                        "looking for beginning of value".to_owned(),
                    ));
                }
            }
            // A value ended here.
            loop {
                match inside.last() {
                    None => {
                        return match self.peek() {
                            Ok(c) => Err(Wrong::Character(c, "after top-level value".to_owned())),
                            Err(_) => Ok(()),
                        };
                    }
                    Some(Inside::Object) => match self.peek()? {
                        b',' => {
                            self.at += 1;
                            self.peek()?;
                            self.key()?;
                            break;
                        }
                        b'}' => {
                            self.at += 1;
                            inside.pop();
                        }
                        c => {
                            return Err(Wrong::Character(
                                c,
                                "after object key:value pair".to_owned(),
                            ));
                        }
                    },
                    Some(Inside::Array) => match self.peek()? {
                        b',' => {
                            self.at += 1;
                            break;
                        }
                        b']' => {
                            self.at += 1;
                            inside.pop();
                        }
                        c => return Err(Wrong::Character(c, "after array element".to_owned())),
                    },
                }
            }
        }
    }

    fn key(&mut self) -> Result<(), Wrong> {
        match self.peek()? {
            b'"' => self.string()?,
            c => {
                let context = "looking for beginning of object key string";
                return Err(Wrong::Character(c, context.to_owned()));
            }
        }
        match self.peek()? {
            b':' => {
                self.at += 1;
                Ok(())
            }
            c => Err(Wrong::Character(c, "after object key".to_owned())),
        }
    }

    fn string(&mut self) -> Result<(), Wrong> {
        self.at += 1;
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let c = self.next()?;
                            if !c.is_ascii_hexdigit() {
                                let context = "in \\u hexadecimal character escape";
                                return Err(Wrong::Character(c, context.to_owned()));
                            }
                        }
                    }
                    c => return Err(Wrong::Character(c, "in string escape code".to_owned())),
                },
                c if c < 0x20 => {
                    return Err(Wrong::Character(c, "in string literal".to_owned()));
                }
                _ => {}
            }
        }
    }

    fn digits(&mut self, context: &str) -> Result<(), Wrong> {
        match self.next()? {
            c if c.is_ascii_digit() => {}
            c => return Err(Wrong::Character(c, context.to_owned())),
        }
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Wrong> {
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), Wrong> {
        for expected in word.bytes() {
            let c = self.next()?;
            if c != expected {
                let context = format!("in literal {word} (expecting {})", quoted(expected));
                return Err(Wrong::Character(c, context));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_are_told_as_go_tells_them() {
        for (text, message) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            (
                "{not json",
                "invalid character 'n' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\": 1 \"b\"}",
                "invalid character '\"' after object key:value pair",
            ),
            (
                "{\"a\": 1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            (
                "trve",
                "invalid character 'v' in literal true (expecting 'u')",
            ),
            ("-x", "invalid character 'x' in numeric literal"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            ("1e+", "unexpected end of JSON input"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            (
                "\"\\u12g4\"",
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            (
                "'a'",
                "invalid character '\\'' looking for beginning of value",
            ),
            ("01", "invalid character '1' after top-level value"),
        ] {
            assert_eq!(error(text.as_bytes()).as_deref(), Some(message), "{text}");
        }
        assert_eq!(
            error("[".repeat(20_000).as_bytes()).as_deref(),
            Some("exceeded max depth")
        );
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_right_and_what_it_refuses_is_wrong(text in r#"[\[\]{}:,"a-c0-9 .ue\\tr-]{0,24}"#) {
            let reads = serde_json::from_slice::<serde_json::Value>(text.as_bytes());
            // Lone surrogates are wrong to serde and become a replacement character in Go.
            let surrogate = reads.as_ref().is_err_and(|e| e.to_string().contains("surrogate") || e.to_string().contains("hex escape"));
            // So are numbers that are too large.
            let large = reads.as_ref().is_err_and(|e| e.to_string().contains("out of range"));
            if !surrogate && !large {
                prop_assert_eq!(error(text.as_bytes()).is_none(), reads.is_ok(), "{}", text);
            }
        }
    }
}
