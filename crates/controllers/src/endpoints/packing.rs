//! Packing endpoints into slices: few slices, few writes. An endpoint stays where it is as long as it is wanted; what
//! is new goes first into slices that are written anyway, then into one with room, then into new ones.
//!
//! Source of the rules: KEP-752, "EndpointSlice reconciliation", and `k8s.io/endpointslice/reconciler.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::member::Port;
use super::service::Family;
use crate::object::{self, ObjectKey};

/// Label: the Service that a slice belongs to.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Label: who writes the slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Annotation: when what the slice shows came about.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Endpoints in a slice. Source: `--max-endpoints-per-slice`.
pub(crate) const LIMIT: usize = 100;

/// What all slices of one owner have in common.
#[derive(Debug, Clone)]
pub(crate) struct Wrapper {
    /// Namespace and name of the Service.
    pub(crate) service: ObjectKey,
    /// The object that the slices go with.
    pub(crate) owner: OwnerReference,
    /// Their labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Their annotations, beside the trigger time.
    pub(crate) annotations: BTreeMap<String, String>,
    /// When what is written came about.
    pub(crate) trigger: Option<Timestamp>,
}

/// Endpoints that may share a slice: one family, the same ports.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// Address family.
    pub(crate) family: Family,
    /// Ports, sorted.
    pub(crate) ports: Vec<Port>,
    /// Endpoints.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// The writes that lead from the slices that are there to those that are wanted.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// New ones; the API server completes their names.
    pub(crate) create: Vec<EndpointSlice>,
    /// Present ones with new content.
    pub(crate) update: Vec<EndpointSlice>,
    /// Those that are not needed.
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

/// Compares. `placeholders` are the families for which an empty slice says "this Service has no endpoint".
pub(crate) fn pack(
    wrapper: &Wrapper,
    groups: Vec<Group>,
    existing: &[Arc<EndpointSlice>],
    placeholders: &[Family],
) -> Changes {
    let mut changes = Changes::default();
    let mut kept: Vec<String> = Vec::new();
    let mut unused: Vec<Arc<EndpointSlice>> = Vec::new();
    let mut groups: Vec<(Group, Vec<Arc<EndpointSlice>>)> = merged(groups)
        .into_iter()
        .map(|group| (group, Vec::new()))
        .collect();
    let mut existing: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    existing.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for slice in existing {
        if object::is_deleting(&slice.metadata) {
            continue;
        }
        match groups.iter_mut().find(|(group, _)| belongs(slice, group)) {
            Some((_, slices)) => slices.push(Arc::clone(slice)),
            None => unused.push(Arc::clone(slice)),
        }
    }
    for (group, slices) in groups {
        pack_group(wrapper, group, slices, &mut changes, &mut kept, &mut unused);
    }
    for family in placeholders {
        let type_ = family.address_type();
        let has_any = changes
            .create
            .iter()
            .chain(&changes.update)
            .any(|slice| slice.address_type == type_)
            || kept.iter().any(|kept| kept == type_);
        if !has_any {
            let is_empty = |slice: &EndpointSlice| {
                slice.address_type == type_
                    && slice.endpoints.as_ref().is_none_or(Vec::is_empty)
                    && slice.ports.as_ref().is_none_or(Vec::is_empty)
            };
            match unused.iter().position(|slice| is_empty(slice)) {
                Some(at) => {
                    let slice = unused.remove(at);
                    if !is_wrapped(wrapper, &slice) {
                        changes
                            .update
                            .push(rewritten(wrapper, &slice, Vec::new(), Vec::new()));
                    }
                }
                None => changes
                    .create
                    .push(created(wrapper, *family, &[], Vec::new())),
            }
        }
    }
    recycle(wrapper, &mut changes, unused);
    changes
}

/// One group for each family and set of ports, endpoints without repetition and in order.
fn merged(groups: Vec<Group>) -> Vec<Group> {
    let mut merged: BTreeMap<(Family, Vec<Port>), BTreeMap<Identity, Endpoint>> = BTreeMap::new();
    for group in groups {
        let all = merged.entry((group.family, group.ports)).or_default();
        for endpoint in group.endpoints {
            all.entry(identity(&endpoint)).or_insert(endpoint);
        }
    }
    let groups = merged
        .into_iter()
        .filter(|(_, endpoints)| !endpoints.is_empty());
    groups
        .map(|((family, ports), endpoints)| Group {
            family,
            ports,
            endpoints: endpoints.into_values().collect(),
        })
        .collect()
}

/// What makes an endpoint the same one when its condition changes.
type Identity = (Option<String>, Option<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    let target = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.clone());
    (endpoint.addresses.first().cloned(), target)
}

fn belongs(slice: &EndpointSlice, group: &Group) -> bool {
    if slice.address_type != group.family.address_type() {
        return false;
    }
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(from_api).collect();
    ports.sort();
    ports == group.ports
}

struct Draft {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn pack_group(
    wrapper: &Wrapper,
    group: Group,
    slices: Vec<Arc<EndpointSlice>>,
    changes: &mut Changes,
    kept: &mut Vec<String>,
    unused: &mut Vec<Arc<EndpointSlice>>,
) {
    let mut wanted: BTreeMap<Identity, Endpoint> = group
        .endpoints
        .into_iter()
        .map(|endpoint| (identity(&endpoint), endpoint))
        .collect();
    let mut drafts: Vec<Draft> = Vec::new();
    for slice in slices {
        let present = slice.endpoints.as_deref().unwrap_or_default();
        let endpoints: Vec<Endpoint> = present
            .iter()
            .filter_map(|endpoint| wanted.remove(&identity(endpoint)))
            .take(LIMIT)
            .collect();
        if endpoints.is_empty() {
            unused.push(slice);
        } else {
            let changed = endpoints != present || !is_wrapped(wrapper, &slice);
            drafts.push(Draft {
                slice,
                endpoints,
                changed,
            });
        }
    }
    let mut new: std::collections::VecDeque<Endpoint> = wanted.into_values().collect();
    // The fullest first, so that the others may run empty one day.
    let mut order: Vec<usize> = (0..drafts.len()).filter(|&at| drafts[at].changed).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(drafts[at].endpoints.len()));
    for at in order {
        let room = LIMIT
            .saturating_sub(drafts[at].endpoints.len())
            .min(new.len());
        drafts[at].endpoints.extend(new.drain(..room));
    }
    while new.len() >= LIMIT {
        changes.create.push(created(
            wrapper,
            group.family,
            &group.ports,
            new.drain(..LIMIT).collect(),
        ));
    }
    if !new.is_empty() {
        let with_room = drafts
            .iter_mut()
            .filter(|draft| draft.endpoints.len() + new.len() <= LIMIT);
        match with_room.max_by_key(|draft| draft.endpoints.len()) {
            Some(draft) => {
                draft.endpoints.extend(new);
                draft.changed = true;
            }
            None => changes
                .create
                .push(created(wrapper, group.family, &group.ports, new.into())),
        }
    }
    for draft in drafts {
        if draft.changed {
            let ports = draft.slice.ports.clone().unwrap_or_default();
            changes
                .update
                .push(rewritten(wrapper, &draft.slice, ports, draft.endpoints));
        } else {
            kept.push(draft.slice.address_type.clone());
        }
    }
}

/// Gives slices that are not needed the content of those that would be created, so that consumers see one change
/// and not two.
fn recycle(wrapper: &Wrapper, changes: &mut Changes, unused: Vec<Arc<EndpointSlice>>) {
    for slice in unused {
        match changes
            .create
            .iter()
            .position(|new| new.address_type == slice.address_type)
        {
            Some(at) => {
                let new = changes.create.remove(at);
                let (ports, endpoints) = (
                    new.ports.unwrap_or_default(),
                    new.endpoints.unwrap_or_default(),
                );
                changes
                    .update
                    .push(rewritten(wrapper, &slice, ports, endpoints));
            }
            None => changes.delete.push(slice),
        }
    }
}

/// Whether the labels, annotations and owner are as they should be.
fn is_wrapped(wrapper: &Wrapper, slice: &EndpointSlice) -> bool {
    let meta = &slice.metadata;
    let present = meta.annotations.as_ref();
    *object::labels_of(meta) == wrapper.labels
        && wrapper
            .annotations
            .iter()
            .all(|(key, value)| present.and_then(|present| present.get(key)) == Some(value))
        && object::owners_of(meta)
            .iter()
            .any(|owner| owner.uid == wrapper.owner.uid)
}

fn created(
    wrapper: &Wrapper,
    family: Family,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", wrapper.service.name)),
            namespace: Some(wrapper.service.namespace.clone()),
            labels: Some(wrapper.labels.clone()),
            annotations: Some(annotations(wrapper, BTreeMap::new())),
            owner_references: Some(vec![wrapper.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: family.address_type().to_owned(),
        ports: Some(ports.iter().map(to_api).collect()),
        endpoints: Some(endpoints),
    }
}

fn rewritten(
    wrapper: &Wrapper,
    slice: &EndpointSlice,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut new = slice.clone();
    new.metadata.labels = Some(wrapper.labels.clone());
    new.metadata.annotations = Some(annotations(
        wrapper,
        slice.metadata.annotations.clone().unwrap_or_default(),
    ));
    new.metadata.owner_references = Some(vec![wrapper.owner.clone()]);
    new.ports = Some(ports);
    new.endpoints = Some(endpoints);
    new
}

fn annotations(
    wrapper: &Wrapper,
    mut present: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    present.extend(wrapper.annotations.clone());
    match wrapper.trigger {
        Some(trigger) => present.insert(TRIGGER_TIME.to_owned(), trigger.to_string()),
        None => present.remove(TRIGGER_TIME),
    };
    present
}

fn to_api(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.number),
        app_protocol: port.app_protocol.clone(),
    }
}

fn from_api(port: &EndpointPort) -> Port {
    Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        number: port.port.unwrap_or_default(),
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::discovery::v1::EndpointConditions;
    use proptest::prelude::*;

    use super::*;

    fn wrapper() -> Wrapper {
        Wrapper {
            service: ObjectKey::new("default", "web"),
            owner: OwnerReference {
                uid: "service".into(),
                ..OwnerReference::default()
            },
            labels: [(SERVICE_LABEL.to_owned(), "web".to_owned())].into(),
            annotations: BTreeMap::new(),
            trigger: None,
        }
    }

    fn port(number: i32) -> Vec<Port> {
        vec![Port {
            name: String::new(),
            protocol: "TCP".into(),
            number,
            app_protocol: None,
        }]
    }

    /// An endpoint by number, ready or not, on one of a few ports.
    type Model = BTreeMap<u16, (bool, i32)>;

    fn groups(model: &Model) -> Vec<Group> {
        let one = |(number, (ready, port_number)): (&u16, &(bool, i32))| Group {
            family: Family::V4,
            ports: port(*port_number),
            endpoints: vec![Endpoint {
                addresses: vec![format!("10.0.{}.{}", number / 256, number % 256)],
                conditions: Some(EndpointConditions {
                    ready: Some(*ready),
                    ..EndpointConditions::default()
                }),
                ..Endpoint::default()
            }],
        };
        model.iter().map(one).collect()
    }

    /// What an API server would hold after the changes.
    fn apply(slices: &mut Vec<Arc<EndpointSlice>>, changes: Changes, counter: &mut usize) {
        for gone in changes.delete {
            slices.retain(|slice| slice.metadata.name != gone.metadata.name);
        }
        for new in changes.update {
            let at = slices
                .iter()
                .position(|slice| slice.metadata.name == new.metadata.name)
                .unwrap();
            slices[at] = Arc::new(new);
        }
        for mut new in changes.create {
            *counter += 1;
            new.metadata.name = Some(format!("web-{counter:04}"));
            slices.push(Arc::new(new));
        }
    }

    fn shown(slices: &[Arc<EndpointSlice>]) -> BTreeSet<(String, Option<bool>, Option<i32>)> {
        let mut all = BTreeSet::new();
        for slice in slices {
            for endpoint in slice.endpoints.iter().flatten() {
                let ready = endpoint
                    .conditions
                    .as_ref()
                    .and_then(|conditions| conditions.ready);
                let port = slice
                    .ports
                    .as_ref()
                    .and_then(|ports| ports.first())
                    .and_then(|port| port.port);
                assert!(
                    all.insert((endpoint.addresses[0].clone(), ready, port)),
                    "shown twice: {endpoint:?}"
                );
            }
        }
        all
    }

    #[test]
    fn no_endpoint_is_one_empty_slice() {
        let (mut slices, mut counter) = (Vec::new(), 0);
        let changes = pack(&wrapper(), vec![], &slices, &[Family::V4]);
        apply(&mut slices, changes, &mut counter);
        assert_eq!(
            (slices.len(), slices[0].endpoints.as_ref().map(Vec::len)),
            (1, Some(0))
        );
        let again = pack(&wrapper(), vec![], &slices, &[Family::V4]);
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
        let changes = pack(
            &wrapper(),
            groups(&[(1, (true, 80))].into()),
            &slices,
            &[Family::V4],
        );
        assert_eq!(
            (
                changes.create.len(),
                changes.update.len(),
                changes.delete.len()
            ),
            (0, 1, 0)
        );
    }

    #[test]
    fn one_endpoint_more_or_less_is_one_write() {
        let mut model: Model = (0..250).map(|number| (number, (true, 80))).collect();
        let (mut slices, mut counter) = (Vec::new(), 0);
        apply(
            &mut slices,
            pack(&wrapper(), groups(&model), &[], &[Family::V4]),
            &mut counter,
        );
        assert_eq!(slices.len(), 3);
        model.insert(900, (true, 80));
        let changes = pack(&wrapper(), groups(&model), &slices, &[Family::V4]);
        assert_eq!(
            (
                changes.create.len(),
                changes.update.len(),
                changes.delete.len()
            ),
            (0, 1, 0)
        );
        apply(&mut slices, changes, &mut counter);
        model.remove(&17);
        let changes = pack(&wrapper(), groups(&model), &slices, &[Family::V4]);
        assert_eq!(
            (
                changes.create.len(),
                changes.update.len(),
                changes.delete.len()
            ),
            (0, 1, 0)
        );
    }

    #[test]
    fn a_slice_loses_a_label_that_the_service_lost() {
        let (mut slices, mut counter) = (Vec::new(), 0);
        let mut old = wrapper();
        old.labels.insert("team".into(), "a".into());
        apply(
            &mut slices,
            pack(&old, groups(&[(1, (true, 80))].into()), &[], &[Family::V4]),
            &mut counter,
        );
        let changes = pack(
            &wrapper(),
            groups(&[(1, (true, 80))].into()),
            &slices,
            &[Family::V4],
        );
        assert_eq!(changes.update.len(), 1);
        assert_eq!(changes.update[0].metadata.labels, Some(wrapper().labels));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn slices_show_the_endpoints_whatever_came_before(
            rounds in prop::collection::vec(
                prop::collection::btree_map(0u16..400, (any::<bool>(), prop::sample::select(vec![80, 8080])), 0..350),
                1..6,
            ),
        ) {
            let (mut slices, mut counter) = (Vec::new(), 0);
            let mut before = Model::new();
            for model in rounds {
                let changes = pack(&wrapper(), groups(&model), &slices, &[Family::V4]);
                let touched = changes.create.len() + changes.update.len();
                let gained: usize = model.iter().filter(|(number, state)| before.get(number) != Some(state)).count();
                let lost: usize = before.keys().filter(|number| !model.contains_key(number)).count();
                prop_assert!(touched <= gained + lost + 1, "{touched} writes for {gained} new and {lost} gone");
                apply(&mut slices, changes, &mut counter);
                let expected: BTreeSet<_> = model
                    .iter()
                    .map(|(number, (ready, port))| (format!("10.0.{}.{}", number / 256, number % 256), Some(*ready), Some(*port)))
                    .collect();
                prop_assert_eq!(shown(&slices), expected);
                prop_assert!(slices.iter().all(|slice| slice.endpoints.as_ref().is_some_and(|all| all.len() <= LIMIT)));
                prop_assert!(!slices.is_empty());
                prop_assert!(slices.iter().filter(|slice| slice.endpoints.as_ref().is_some_and(Vec::is_empty)).count() <= 1);
                let again = pack(&wrapper(), groups(&model), &slices, &[Family::V4]);
                prop_assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
                before = model;
            }
        }
    }
}
