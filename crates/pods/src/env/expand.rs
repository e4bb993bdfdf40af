//! `$(NAME)` in commands, arguments and environment values.
//! Source: Kubernetes' `third_party/forked/golang/expansion`: `$$` is a dollar sign, an unknown name stays as written.

/// Replaces every `$(NAME)` that `lookup` knows.
pub fn expand<'a>(input: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(dollar) = rest.find('$') {
        output.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        match after.chars().next() {
            // A dollar sign at the very end stays.
            None => {
                output.push('$');
                rest = after;
            }
            Some('$') => {
                output.push('$');
                rest = &after[1..];
            }
            Some('(') => match after.find(')') {
                Some(close) => {
                    let name = &after[1..close];
                    match lookup(name) {
                        Some(value) => output.push_str(value),
                        None => {
                            output.push_str("$(");
                            output.push_str(name);
                            output.push(')');
                        }
                    }
                    rest = &after[close + 1..];
                }
                None => {
                    output.push_str("$(");
                    rest = &after[1..];
                }
            },
            Some(other) => {
                output.push('$');
                output.push(other);
                rest = &after[other.len_utf8()..];
            }
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<&'static str> {
        match name {
            "VAR_A" => Some("A"),
            "VAR_B" => Some("B"),
            "VAR_REF" => Some("$(VAR_A)"),
            "VAR_EMPTY" => Some(""),
            _ => None,
        }
    }

    #[test]
    fn references_expand_as_in_kubernetes() {
        for (input, output) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)$(VAR_B)", "AB"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("foo-$(VAR_EMPTY)-bar", "foo--bar"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("f000-$VAR_A", "f000-$VAR_A"),
            ("foo$(VAR_A", "foo$(VAR_A"),
            ("$(VAR_A", "$(VAR_A"),
            ("$()", "$()"),
            ("$", "$"),
            ("$$", "$"),
            ("a$", "a$"),
            ("$é$(VAR_A)", "$éA"),
            ("$(VAR_A)$$$(VAR_B)$(", "A$B$("),
        ] {
            assert_eq!(expand(input, lookup), output, "{input}");
        }
    }

    proptest! {
        #[test]
        fn expansion_never_panics_and_keeps_text_without_dollars(input in ".{0,60}") {
            let output = expand(&input, lookup);
            if !input.contains('$') {
                prop_assert_eq!(output, input);
            }
        }

        #[test]
        fn doubled_dollars_give_the_text_back(input in "[$()A-Z_a-z]{0,40}") {
            prop_assert_eq!(expand(&input.replace('$', "$$"), lookup), input);
        }
    }
}
