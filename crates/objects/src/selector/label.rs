//! Label selectors in their three forms: the object (`matchLabels`, `matchExpressions`), the plain map of a Service
//! or ReplicationController, and the text of a query (`a=b,c!=d,e in (x,y),!g`).
//!
//! Source: `k8s.io/apimachinery/pkg/labels`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::names;

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// The label is there with one of the values.
    In(BTreeSet<String>),
    /// The label is not there, or has none of the values.
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is there, a whole number, and greater.
    GreaterThan(i64),
    /// The label is there, a whole number, and less.
    LessThan(i64),
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

/// Which labels are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(Choice);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Nothing,
    All(Vec<Requirement>),
}

impl Default for Choice {
    /// Nothing: forgetting to fill in a selector must not select everything.
    fn default() -> Self {
        Self::Nothing
    }
}

/// A selector that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    /// The text cannot be read; the message is Kubernetes'.
    #[error("{0}")]
    Syntax(String),
    /// The operator does not exist.
    #[error("\"{0}\" is not a valid label selector operator")]
    UnknownOperator(String),
    /// `In` and `NotIn` without values, or `Exists` and `DoesNotExist` with some.
    #[error("values: Invalid value: {values}: {hint}")]
    Values {
        /// The values as JSON.
        values: String,
        /// What they should be.
        hint: &'static str,
    },
}

impl Requirement {
    /// Whether the labels fulfil it.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let value = label(&self.key);
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Operator::LessThan(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self(Choice::All(Vec::new()))
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self(Choice::Nothing)
    }

    /// Selects objects that have all these labels. An empty map selects everything, as it does in Kubernetes' own
    /// conversion; a Service without selector must be told apart by the caller.
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        let requirements = map.iter().map(|(k, v)| equals(k, v)).collect();
        Self(Choice::All(requirements))
    }

    /// The selector of an object's field: absent selects nothing, empty selects everything.
    ///
    /// # Errors
    /// An operator that does not exist, or one whose values do not fit it.
    pub fn from_object(selector: Option<&meta::LabelSelector>) -> Result<Self, LabelSelectorError> {
        let Some(selector) = selector else {
            return Ok(Self::nothing());
        };
        let mut requirements: Vec<Requirement> = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(k, v)| equals(k, v))
            .collect();
        for expression in selector.match_expressions.iter().flatten() {
            requirements.push(Requirement {
                key: expression.key.clone(),
                operator: operator(
                    &expression.operator,
                    expression.values.as_deref().unwrap_or_default(),
                )?,
            });
        }
        requirements.sort();
        Ok(Self(Choice::All(requirements)))
    }

    /// The selector of a query (`labelSelector=`); the empty text selects everything.
    ///
    /// # Errors
    /// A text that is no selector, in Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        let mut requirements = Parser::new(text).requirements()?;
        requirements.sort();
        Ok(Self(Choice::All(requirements)))
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object is selected; `label` tells the value of a label.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        match &self.0 {
            Choice::Nothing => false,
            Choice::All(requirements) => requirements.iter().all(|r| r.matches(&label)),
        }
    }

    /// Whether an object, given as JSON, is selected.
    pub fn matches_object(&self, object: &serde_json::Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.matches_by(|key| labels?.get(key)?.as_str())
    }

    /// Whether it selects every object, so that looking at labels is not needed.
    pub fn is_everything(&self) -> bool {
        matches!(&self.0, Choice::All(requirements) if requirements.is_empty())
    }

    /// The conditions; `None` if it selects nothing.
    pub fn requirements(&self) -> Option<&[Requirement]> {
        match &self.0 {
            Choice::Nothing => None,
            Choice::All(requirements) => Some(requirements),
        }
    }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement {
        key: key.to_owned(),
        operator: Operator::In([value.to_owned()].into()),
    }
}

fn operator(name: &str, values: &[String]) -> Result<Operator, LabelSelectorError> {
    let set = || values.iter().cloned().collect::<BTreeSet<_>>();
    let wrong = |hint| LabelSelectorError::Values {
        values: serde_json::to_string(values).unwrap_or_default(),
        hint,
    };
    match (name, values.is_empty()) {
        ("In", false) => Ok(Operator::In(set())),
        ("NotIn", false) => Ok(Operator::NotIn(set())),
        ("In" | "NotIn", true) => Err(wrong(
            "for 'in', 'notin' operators, values set can't be empty",
        )),
        ("Exists", true) => Ok(Operator::Exists),
        ("DoesNotExist", true) => Ok(Operator::DoesNotExist),
        ("Exists" | "DoesNotExist", false) => Err(wrong(
            "values set must be empty for exists and does not exist",
        )),
        (other, _) => Err(LabelSelectorError::UnknownOperator(other.to_owned())),
    }
}

impl fmt::Display for LabelSelector {
    /// The form of a query; what selects nothing has none and is shown as `<none>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::Nothing => f.write_str("<none>"),
            Choice::All(requirements) => {
                for (i, requirement) in requirements.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{requirement}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list(values: &BTreeSet<String>) -> String {
            values
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(",")
        }
        let key = &self.key;
        match &self.operator {
            Operator::In(values) => match values.first() {
                Some(only) if values.len() == 1 => write!(f, "{key}={only}"),
                _ => write!(f, "{key} in ({})", list(values)),
            },
            Operator::NotIn(values) => match values.first() {
                Some(only) if values.len() == 1 => write!(f, "{key}!={only}"),
                _ => write!(f, "{key} notin ({})", list(values)),
            },
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan(bound) => write!(f, "{key}>{bound}"),
            Operator::LessThan(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    End,
    Text(String),
    Symbol(&'static str),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::End => "",
            Self::Text(text) => text,
            Self::Symbol(symbol) => symbol,
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            tokens.push(Token::End);
            return tokens;
        }
        if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let end = rest
                .find(|c: char| " \t\r\n=!(),<>".contains(c))
                .unwrap_or(rest.len());
            tokens.push(Token::Text(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        Self {
            tokens: tokens(text),
            at: 0,
        }
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, LabelSelectorError> {
        let mut found = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(found),
                Token::Text(_) | Token::Symbol("!") => {
                    let requirement = self.requirement().map_err(|e| {
                        LabelSelectorError::Syntax(format!("unable to parse requirement: {e}"))
                    })?;
                    found.push(requirement);
                    match self.next() {
                        Token::End => return Ok(found),
                        Token::Symbol(",") => match self.peek() {
                            Token::Text(_) | Token::Symbol("!") => {}
                            other => {
                                return Err(syntax(format!(
                                    "found '{}', expected: identifier after ','",
                                    other.text()
                                )));
                            }
                        },
                        other => {
                            return Err(syntax(format!(
                                "found '{}', expected: ',' or 'end of string'",
                                other.text()
                            )));
                        }
                    }
                }
                other => {
                    return Err(syntax(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        other.text()
                    )));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        let absent = *self.peek() == Token::Symbol("!");
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Text(key) => key,
            other => {
                return Err(syntax(format!(
                    "found '{}', expected: identifier",
                    other.text()
                )));
            }
        };
        if let Some(wrong) = names::qualified_name(&key).first() {
            return Err(syntax(format!("key: Invalid value: \"{key}\": {wrong}")));
        }
        if absent || matches!(self.peek(), Token::End | Token::Symbol(",")) {
            let operator = if absent {
                Operator::DoesNotExist
            } else {
                Operator::Exists
            };
            return Ok(Requirement { key, operator });
        }
        let operator = match self.next() {
            Token::Text(word) if word == "in" => Operator::In(self.list(&key)?),
            Token::Text(word) if word == "notin" => Operator::NotIn(self.list(&key)?),
            Token::Symbol("=" | "==") => Operator::In([self.value(&key)?].into()),
            Token::Symbol("!=") => Operator::NotIn([self.value(&key)?].into()),
            Token::Symbol(">") => Operator::GreaterThan(self.number(&key)?),
            Token::Symbol("<") => Operator::LessThan(self.number(&key)?),
            other => {
                return Err(syntax(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                )));
            }
        };
        Ok(Requirement { key, operator })
    }

    /// A value after an operator; nothing there is the empty value.
    fn value(&mut self, key: &str) -> Result<String, LabelSelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Text(_) => {
                let value = self.next().text().to_owned();
                checked_value(key, value)
            }
            other => Err(syntax(format!(
                "found '{}', expected: identifier",
                other.text()
            ))),
        }
    }

    fn number(&mut self, key: &str) -> Result<i64, LabelSelectorError> {
        let value = self.value(key)?;
        value.parse().map_err(|_| {
            syntax(format!(
                "values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
            ))
        })
    }

    fn list(&mut self, key: &str) -> Result<BTreeSet<String>, LabelSelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(syntax(format!("found '{}' expected: '('", other.text()))),
        }
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                Token::Text(value) => {
                    values.insert(checked_value(key, value)?);
                    match self.next() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => return Ok(values),
                        other => {
                            return Err(syntax(format!(
                                "found '{}', expected: ',' or ')'",
                                other.text()
                            )));
                        }
                    }
                }
                // An empty element is the empty value: `a in (,x)`.
                Token::Symbol(",") => {
                    values.insert(String::new());
                }
                Token::Symbol(")") => {
                    values.insert(String::new());
                    return Ok(values);
                }
                other => {
                    return Err(syntax(format!(
                        "found '{}', expected: ',', ')' or identifier",
                        other.text()
                    )));
                }
            }
        }
    }
}

fn checked_value(key: &str, value: String) -> Result<String, LabelSelectorError> {
    match names::label_value(&value).first() {
        Some(wrong) => Err(syntax(format!(
            "values[0][{key}]: Invalid value: \"{value}\": {wrong}"
        ))),
        None => Ok(value),
    }
}

fn syntax(detail: String) -> LabelSelectorError {
    LabelSelectorError::Syntax(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_query_selects_what_it_says() {
        let object = labels(&[("a", "b"), ("n", "5"), ("empty", "")]);
        for (query, selected) in [
            ("", true),
            ("a", true),
            ("!a", false),
            ("z", false),
            ("!z", true),
            ("a=b", true),
            ("a==b", true),
            ("a=c", false),
            ("a!=c", true),
            ("z!=c", true),
            ("a in (b,c)", true),
            ("a in (c)", false),
            ("a notin (c, d)", true),
            ("z notin (c)", true),
            ("a = b , n in ( 5 )", true),
            ("n>4", true),
            ("n<5", false),
            ("empty=", true),
            ("a=", false),
            ("empty in ()", true),
            ("in in (in)", false),
        ] {
            let selector = LabelSelector::parse(query).expect(query);
            assert_eq!(selector.matches(&object), selected, "{query}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (query, message) in [
            ("tier=,,", "found ',', expected: identifier after ','"),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "=b",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            ("a=b)", "found ')', expected: ',' or 'end of string'"),
            ("a=b,", "found '', expected: identifier after ','"),
        ] {
            let error = LabelSelector::parse(query).expect_err(query);
            assert_eq!(error.to_string(), message, "{query}");
        }
        for query in [
            "a>x",
            "a in (b",
            "!",
            "a b c",
            "-a=b",
            "a=b c",
            "a in (b c)",
            "a=-",
        ] {
            LabelSelector::parse(query).expect_err(query);
        }
    }

    #[test]
    fn absent_selects_nothing_and_empty_selects_everything() {
        let any = labels(&[("a", "b")]);
        let absent = LabelSelector::from_object(None).expect("absent");
        assert!(!absent.matches(&any) && !absent.matches(&labels(&[])));
        let empty =
            LabelSelector::from_object(Some(&meta::LabelSelector::default())).expect("empty");
        assert!(empty.matches(&any) && empty.is_everything());
        assert!(!LabelSelector::default().matches(&any));
    }

    #[test]
    fn expressions_count_even_without_match_labels() {
        let expression = |operator: &str, values: Option<Vec<String>>| meta::LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![meta::LabelSelectorRequirement {
                key: "a".into(),
                operator: operator.into(),
                values,
            }]),
        };
        let object = labels(&[("a", "b")]);
        for (operator, values, selected) in [
            ("In", Some(vec!["c".to_owned()]), false),
            ("NotIn", Some(vec!["c".to_owned()]), true),
            ("Exists", None, true),
            ("DoesNotExist", None, false),
        ] {
            let selector =
                LabelSelector::from_object(Some(&expression(operator, values))).expect(operator);
            assert_eq!(selector.matches(&object), selected, "{operator}");
        }
        for (operator, values) in [
            ("Like", Some(vec!["b".to_owned()])),
            ("in", Some(vec!["b".to_owned()])),
            ("In", None),
            ("NotIn", Some(vec![])),
            ("Exists", Some(vec!["b".to_owned()])),
        ] {
            LabelSelector::from_object(Some(&expression(operator, values))).expect_err(operator);
        }
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let key = "[a-z]([a-z0-9.]{0,5}[a-z0-9])?(/[a-z])?";
        let values = || proptest::collection::btree_set("[a-z0-9]{0,3}", 1..4);
        let operator = prop_oneof![
            values().prop_map(Operator::In),
            values().prop_map(Operator::NotIn),
            Just(Operator::Exists),
            Just(Operator::DoesNotExist),
            any::<u32>().prop_map(|n| Operator::GreaterThan(n.into())),
            any::<u32>().prop_map(|n| Operator::LessThan(n.into())),
        ];
        (key, operator)
            .prop_filter("two dots are no name", |(key, _)| {
                names::qualified_name(key).is_empty()
            })
            .prop_map(|(key, operator)| Requirement { key, operator })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(mut wanted in proptest::collection::vec(requirement(), 0..5)) {
            wanted.sort();
            let selector = LabelSelector(Choice::All(wanted));
            let read = LabelSelector::parse(&selector.to_string());
            prop_assert_eq!(read, Ok(selector));
        }

        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
