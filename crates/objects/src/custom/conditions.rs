//! What is true of a definition: whether its names are free, whether it is served, who approved of its group.
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/status`, `establish` and `apiapproval`;
//! `pkg/apihelpers`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::definition::{Definition, Names};
use crate::kind;

/// The finalizer under which all objects of the kind are deleted before the definition is.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The annotation that says who approved of a kind in a group of Kubernetes.
pub const APPROVED: &str = "api-approved.kubernetes.io";

/// Whether anybody approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// The annotation is neither an address nor an admission.
    Invalid,
    /// The annotation has the address of the approval.
    Approved,
    /// The annotation admits that there is no approval.
    Bypassed,
    /// There is no annotation.
    Missing,
}

/// Whether the group belongs to Kubernetes.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group == *domain || group.strip_suffix(domain).is_some_and(|g| g.ends_with('.'))
    })
}

/// What the annotations say of an approval, and in which words.
pub fn approval(annotations: &BTreeMap<String, String>) -> (Approval, String) {
    let text = annotations.get(APPROVED).map_or("", String::as_str);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_address = || {
        let (scheme, rest) = text.split_once("://")?;
        let host = rest.split(['/', '?', '#']).next()?;
        (!scheme.is_empty() && !host.is_empty() && !text.contains(' ')).then_some(())
    };
    if text.is_empty() {
        let why = format!("protected groups must have approval annotation {APPROVED:?}, {see}");
        (Approval::Missing, why)
    } else if text.starts_with("unapproved") {
        (Approval::Bypassed, format!("not approved: {text:?}"))
    } else if is_address().is_some() {
        (Approval::Approved, format!("approved in {text}"))
    } else {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {see}"
        );
        (Approval::Invalid, why)
    }
}

/// The names that others in the group have.
#[derive(Debug, Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    fn of(definition: &Definition, all: &[Definition], builtin: &[&kind::Names]) -> Self {
        let mut taken = Self::default();
        let others = all.iter().filter(|d| {
            d.spec.group == definition.spec.group && d.metadata.name != definition.metadata.name
        });
        for Names {
            plural,
            singular,
            short_names,
            kind,
            list_kind,
            ..
        } in others.map(|d| &d.status.accepted_names)
        {
            let resources = [plural, singular].into_iter().chain(short_names);
            taken.resources.extend(resources.cloned());
            taken.kinds.extend([kind, list_kind].map(Clone::clone));
        }
        for names in builtin.iter().filter(|n| n.group == definition.spec.group) {
            let resources = [&names.plural, &names.singular]
                .into_iter()
                .chain(names.short_names);
            taken.resources.extend(resources.map(|n| (*n).to_owned()));
            taken
                .kinds
                .extend([names.kind.to_owned(), format!("{}List", names.kind)]);
        }
        taken
    }
}

/// The status that the definition should have. `status` is what it has, as JSON; `all` are all definitions, `builtin`
/// the kinds that are always served, `now` is the time as objects say it.
pub fn next_status(
    definition: &Definition,
    status: &Value,
    all: &[Definition],
    builtin: &[&kind::Names],
    now: &str,
) -> Value {
    let mut status = match status {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    if is_protected(&definition.spec.group) {
        let (state, message) = approval(&definition.metadata.annotations);
        let (value, reason) = match state {
            Approval::Invalid => ("False", "InvalidAnnotation"),
            Approval::Missing => ("False", "MissingAnnotation"),
            Approval::Approved => ("True", "ApprovedAnnotation"),
            Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        };
        let kind = "KubernetesAPIApprovalPolicyConformant";
        set_condition(&mut status, kind, value, reason, &message, now);
    }
    let taken = Taken::of(definition, all, builtin);
    let (names, conflict) = accept(definition, &taken);
    status.insert("acceptedNames".to_owned(), names);
    let established = definition.is("Established");
    match conflict {
        Some((reason, message)) => {
            let kind = "NamesAccepted";
            set_condition(&mut status, kind, "False", reason, &message, now);
            if !established {
                let message = "not all names are accepted";
                let kind = "Established";
                set_condition(&mut status, kind, "False", "NotAccepted", message, now);
            }
        }
        None => {
            let (kind, message) = ("NamesAccepted", "no conflicts found");
            set_condition(&mut status, kind, "True", "NoConflicts", message, now);
            if !established {
                let message = "the initial names have been accepted";
                let (kind, reason) = ("Established", "InitialNamesAccepted");
                set_condition(&mut status, kind, "True", reason, message, now);
            }
        }
    }
    Value::Object(status)
}

/// The names that are accepted, and what stands against the others.
fn accept(definition: &Definition, taken: &Taken) -> (Value, Option<(&'static str, String)>) {
    let (asked, has) = (&definition.spec.names, &definition.status.accepted_names);
    let mut names = has.clone();
    let mut conflict = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    let free =
        |name: &str, own: &str, taken: &BTreeSet<String>| name == own || !taken.contains(name);
    let mut one = |name: &String, own: &mut String, taken, reason| {
        if free(name, own, taken) {
            own.clone_from(name);
        } else {
            conflict = Some((reason, in_use(name)));
        }
    };
    let (resources, kinds) = (&taken.resources, &taken.kinds);
    one(
        &asked.plural,
        &mut names.plural,
        resources,
        "PluralConflict",
    );
    one(
        &asked.singular,
        &mut names.singular,
        resources,
        "SingularConflict",
    );
    let refused: Vec<String> = asked
        .short_names
        .iter()
        .filter(|name| !has.short_names.contains(name) && resources.contains(*name))
        .map(|name| in_use(name))
        .collect();
    if refused.is_empty() {
        names.short_names.clone_from(&asked.short_names);
    }
    one(&asked.kind, &mut names.kind, kinds, "KindConflict");
    one(
        &asked.list_kind,
        &mut names.list_kind,
        kinds,
        "ListKindConflict",
    );
    if !refused.is_empty() && conflict.is_none() {
        let message = match refused.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        conflict = Some(("ShortNamesConflict", message));
    }
    names.categories.clone_from(&asked.categories);
    let mut shown = json!({"plural": names.plural, "kind": names.kind});
    for (field, text) in [
        ("singular", &names.singular),
        ("listKind", &names.list_kind),
    ] {
        if !text.is_empty() {
            shown[field] = json!(text);
        }
    }
    for (field, list) in [
        ("shortNames", &names.short_names),
        ("categories", &names.categories),
    ] {
        if !list.is_empty() {
            shown[field] = json!(list);
        }
    }
    (shown, conflict)
}

/// Sets a condition; its time changes with what it says only.
pub fn set_condition(
    status: &mut Map<String, Value>,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: &str,
) {
    let conditions = status
        .entry("conditions")
        .or_insert_with(|| Value::Array(Vec::new()));
    if !conditions.is_array() {
        *conditions = Value::Array(Vec::new());
    }
    let Some(list) = conditions.as_array_mut() else {
        return;
    };
    let mut condition = json!({"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": now});
    match list.iter_mut().find(|c| c["type"] == kind) {
        Some(old) => {
            if old["status"] == value && old["lastTransitionTime"].is_string() {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => list.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, kind: &str, created: bool) -> Definition {
        let names = json!({"plural": name, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": ["w"]});
        let accepted = if created { names.clone() } else { json!({}) };
        Definition::read(&json!({"metadata": {"name": format!("{name}.example.com")},
            "spec": {"group": "example.com", "names": names}, "status": {"acceptedNames": accepted}}))
        .unwrap()
    }

    fn told(status: &Value) -> Vec<String> {
        let conditions = status["conditions"].as_array().unwrap();
        let text = |c: &Value, f: &str| c[f].as_str().unwrap_or_default().to_owned();
        conditions
            .iter()
            .map(|c| {
                format!(
                    "{}={} {} {}",
                    text(c, "type"),
                    text(c, "status"),
                    text(c, "reason"),
                    text(c, "message")
                )
            })
            .collect()
    }

    #[test]
    fn free_names_are_accepted_and_the_kind_is_served() {
        let new = definition("widgets", "Widget", false);
        let status = next_status(&new, &Value::Null, std::slice::from_ref(&new), &[], "now");
        assert_eq!(
            told(&status),
            [
                "NamesAccepted=True NoConflicts no conflicts found",
                "Established=True InitialNamesAccepted the initial names have been accepted",
            ]
        );
        assert_eq!(
            status["acceptedNames"],
            json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["w"]})
        );
    }

    #[test]
    fn a_name_that_another_definition_has_is_refused() {
        let all = [
            definition("gadgets", "Widget", true),
            definition("widgets", "Widget", false),
        ];
        let status = next_status(&all[1], &Value::Null, &all, &[], "now");
        assert_eq!(
            told(&status),
            [
                "NamesAccepted=False ListKindConflict \"WidgetList\" is already in use",
                "Established=False NotAccepted not all names are accepted",
            ]
        );
        assert_eq!(
            status["acceptedNames"],
            json!({"plural": "widgets", "kind": ""})
        );
    }

    #[test]
    fn a_name_of_a_kind_that_is_always_there_is_refused() {
        let builtin = kind::Names {
            group: "example.com",
            version: "v1",
            kind: "Widget",
            plural: "widgets",
            singular: "widget",
            short_names: &[],
            categories: &[],
            namespaced: true,
        };
        let new = definition("widgets", "Widget", false);
        let status = next_status(&new, &Value::Null, &[], &[&builtin], "now");
        assert!(told(&status)[0].starts_with("NamesAccepted=False"));
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_says_the_same() {
        let mut status = Map::new();
        set_condition(&mut status, "A", "True", "R", "m", "1");
        set_condition(&mut status, "A", "True", "S", "n", "2");
        assert_eq!(status["conditions"][0]["lastTransitionTime"], "1");
        set_condition(&mut status, "A", "False", "S", "n", "3");
        assert_eq!(status["conditions"][0]["lastTransitionTime"], "3");
    }

    #[test]
    fn groups_of_kubernetes_are_protected() {
        for (group, protected) in [
            ("k8s.io", true),
            ("gateway.networking.k8s.io", true),
            ("x.kubernetes.io", true),
            ("notk8s.io", false),
            ("example.com", false),
        ] {
            assert_eq!(is_protected(group), protected, "{group}");
        }
        let state =
            |text: &str| approval(&BTreeMap::from([(APPROVED.to_owned(), text.to_owned())])).0;
        assert_eq!(state("https://github.com/x"), Approval::Approved);
        assert_eq!(state("unapproved, experimental"), Approval::Bypassed);
        assert_eq!(state("whatever"), Approval::Invalid);
    }
}
