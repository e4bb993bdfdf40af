//! Label selectors: which objects a Service, ReplicaSet or Deployment means.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A parsed selector. All requirements must hold; no requirement at all means every object, which the workload kinds
/// forbid and callers check with [`Selector::selects_everything`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Equals(String, String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    /// The simple form of Services and ReplicationControllers: every label must have its value.
    pub(crate) fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let equals =
            |(key, value): (&String, &String)| Requirement::Equals(key.clone(), value.clone());
        Self {
            requirements: labels.iter().map(equals).collect(),
        }
    }

    /// The form with expressions. An unknown operator or an operator without the values it needs is an error, never
    /// an expression left out.
    pub(crate) fn parse(selector: &LabelSelector) -> Result<Self, String> {
        let mut parsed =
            Self::from_labels(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new()));
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            let requirement = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::DoesNotExist(key),
                ("In" | "NotIn", true) => {
                    return Err(format!(
                        "selector: {} of {key} needs values",
                        expression.operator
                    ));
                }
                ("Exists" | "DoesNotExist", false) => {
                    return Err(format!(
                        "selector: {} of {key} takes no values",
                        expression.operator
                    ));
                }
                (other, _) => return Err(format!("selector: {other:?} is not an operator")),
            };
            parsed.requirements.push(requirement);
        }
        Ok(parsed)
    }

    /// Whether an object with these labels is meant.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| match requirement {
                Requirement::Equals(key, value) => labels.get(key) == Some(value),
                Requirement::In(key, values) => {
                    labels.get(key).is_some_and(|value| values.contains(value))
                }
                Requirement::NotIn(key, values) => {
                    labels.get(key).is_none_or(|value| !values.contains(value))
                }
                Requirement::Exists(key) => labels.contains_key(key),
                Requirement::DoesNotExist(key) => !labels.contains_key(key),
            })
    }

    /// Has no requirement.
    pub(crate) fn selects_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The labels that a matching object has for certain; an index by labels can start from any of them.
    pub(crate) fn certain_labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements
            .iter()
            .filter_map(|requirement| match requirement {
                Requirement::Equals(key, value) => Some((key.as_str(), value.as_str())),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn expression(operator: &str, values: Option<&[&str]>) -> Result<Selector, String> {
        Selector::parse(&LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".into(),
                operator: operator.into(),
                values: values.map(|all| all.iter().map(|&value| value.to_owned()).collect()),
            }]),
        })
    }

    #[test]
    fn each_operator_means_what_the_reference_says() {
        let (web, db, none) = (
            labels(&[("tier", "web")]),
            labels(&[("tier", "db")]),
            labels(&[]),
        );
        let table: [(&str, Option<&[&str]>, [bool; 3]); 4] = [
            ("In", Some(&["web"]), [true, false, false]),
            ("NotIn", Some(&["web"]), [false, true, true]),
            ("Exists", None, [true, true, false]),
            ("DoesNotExist", None, [false, false, true]),
        ];
        for (operator, values, expected) in table {
            let selector = expression(operator, values).unwrap();
            assert_eq!(
                [&web, &db, &none].map(|labels| selector.matches(labels)),
                expected,
                "{operator}"
            );
        }
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        assert!(expression("Near", Some(&["web"])).is_err());
        assert!(expression("In", None).is_err());
        assert!(expression("Exists", Some(&["web"])).is_err());
    }
}
