//! Writes objects as Go does, so that what is stored and sent does not depend on who wrote it: fields that are
//! `omitempty` in the Kubernetes types vanish when they are empty (`""`, `[]`, `{}` of a map, and `0` or `false`
//! where the Go field is no pointer).
//!
//! Quantities are written in their canonical form, whoever wrote them: `500m` for `0.5`.
//!
//! k8s-openapi knows `None` only, so what is empty is decided here: strings, lists and maps are dropped unless
//! [`KEEPS_EMPTY`] says that the Go field is a pointer or required; numbers and booleans are kept unless
//! [`DROPS_ZERO`] says that the Go field is a plain, optional one.

use serde::ser::{self, Serialize};
use serde_json::{Map, Value};

use crate::quantity;

/// Type and field whose empty string, list or map means something; `*` stands for all fields of the type.
const KEEPS_EMPTY: &[(&str, &str)] = &[
    ("Condition", "*"),
    ("ContainerImage", "names"),
    ("CustomResourceDefinitionNames", "kind"),
    ("CustomResourceDefinitionNames", "plural"),
    ("CustomResourceSubresources", "status"),
    ("ContainerStatus", "image"),
    ("CronJobSpec", "schedule"),
    ("ContainerStatus", "imageID"),
    ("Endpoint", "addresses"),
    ("Event", "reportingComponent"),
    ("Event", "reportingInstance"),
    ("GRPCAction", "service"),
    ("HTTPHeader", "*"),
    ("HostPathVolumeSource", "type"),
    ("JSONSchemaProps", "default"),
    ("JSONSchemaProps", "example"),
    ("IngressClassParametersReference", "*"),
    ("IngressServiceBackend", "name"),
    ("IngressSpec", "ingressClassName"),
    ("JobStatus", "failedIndexes"),
    ("TypedLocalObjectReference", "*"),
    ("LeaseSpec", "holderIdentity"),
    ("NodeSystemInfo", "*"),
    ("OwnerReference", "*"),
    ("PodSpec", "containers"),
    ("PodSpec", "runtimeClassName"),
    ("ServicePort", "appProtocol"),
    ("ServiceSpec", "loadBalancerClass"),
    ("SuccessPolicyRule", "succeededIndexes"),
];

/// As [`KEEPS_EMPTY`], for types that have the same name in several groups: kind of the object, type, field.
const KEEPS_EMPTY_IN: &[(&str, &str, &str)] = &[
    ("EndpointSlice", "EndpointPort", "name"),
    ("EndpointSlice", "EndpointPort", "appProtocol"),
];

/// Type and field whose list or map is `null` when it was never set: Go fields that are required and nothing.
const SHOWS_NULL: &[(&str, &str)] = &[
    ("CustomResourceDefinitionStatus", "conditions"),
    ("CustomResourceDefinitionStatus", "storedVersions"),
];

/// Type and field (a number or boolean) that Go leaves out when it is zero.
const DROPS_ZERO: &[(&str, &str)] = &[
    ("Container", "stdin"),
    ("Container", "stdinOnce"),
    ("Container", "tty"),
    ("ContainerPort", "hostPort"),
    ("ContainerStateTerminated", "signal"),
    ("DaemonSetSpec", "minReadySeconds"),
    ("DaemonSetStatus", "numberAvailable"),
    ("DaemonSetStatus", "numberUnavailable"),
    ("DaemonSetStatus", "observedGeneration"),
    ("DaemonSetStatus", "updatedNumberScheduled"),
    ("CustomResourceColumnDefinition", "priority"),
    ("CustomResourceDefinitionSpec", "preserveUnknownFields"),
    ("CustomResourceDefinitionVersion", "deprecated"),
    ("DeploymentSpec", "minReadySeconds"),
    ("DeploymentSpec", "paused"),
    ("DeploymentStatus", "availableReplicas"),
    ("DeploymentStatus", "observedGeneration"),
    ("DeploymentStatus", "readyReplicas"),
    ("DeploymentStatus", "replicas"),
    ("DeploymentStatus", "unavailableReplicas"),
    ("DeploymentStatus", "updatedReplicas"),
    ("EphemeralContainer", "stdin"),
    ("EphemeralContainer", "stdinOnce"),
    ("EphemeralContainer", "tty"),
    ("Event", "count"),
    ("EventSeries", "count"),
    ("JobStatus", "active"),
    ("JobStatus", "failed"),
    ("JobStatus", "succeeded"),
    ("JSONSchemaProps", "exclusiveMaximum"),
    ("JSONSchemaProps", "exclusiveMinimum"),
    ("JSONSchemaProps", "nullable"),
    ("JSONSchemaProps", "uniqueItems"),
    ("JSONSchemaProps", "x-kubernetes-embedded-resource"),
    ("JSONSchemaProps", "x-kubernetes-int-or-string"),
    ("NodeSpec", "unschedulable"),
    ("ObjectMeta", "generation"),
    ("PodCondition", "observedGeneration"),
    ("PodSpec", "hostIPC"),
    ("PodSpec", "hostNetwork"),
    ("PodSpec", "hostPID"),
    ("PodStatus", "observedGeneration"),
    ("Probe", "failureThreshold"),
    ("Probe", "initialDelaySeconds"),
    ("Probe", "periodSeconds"),
    ("Probe", "successThreshold"),
    ("Probe", "timeoutSeconds"),
    ("ReplicaSetSpec", "minReadySeconds"),
    ("ReplicaSetStatus", "availableReplicas"),
    ("ReplicaSetStatus", "fullyLabeledReplicas"),
    ("ReplicaSetStatus", "observedGeneration"),
    ("ReplicaSetStatus", "readyReplicas"),
    ("ReplicationControllerSpec", "minReadySeconds"),
    ("ReplicationControllerStatus", "availableReplicas"),
    ("ReplicationControllerStatus", "fullyLabeledReplicas"),
    ("ReplicationControllerStatus", "observedGeneration"),
    ("ReplicationControllerStatus", "readyReplicas"),
    ("ServiceBackendPort", "number"),
    ("ServicePort", "nodePort"),
    ("ServiceSpec", "healthCheckNodePort"),
    ("ServiceSpec", "publishNotReadyAddresses"),
    ("StatefulSetSpec", "minReadySeconds"),
    ("StatefulSetStatus", "currentReplicas"),
    ("StatefulSetStatus", "observedGeneration"),
    ("StatefulSetStatus", "readyReplicas"),
    ("StatefulSetStatus", "updatedReplicas"),
    ("VolumeMount", "readOnly"),
];

/// An object of the kind `kind` as JSON.
///
/// # Errors
/// The value does not fit JSON; no Kubernetes type does that.
pub fn to_value(kind: &'static str, object: &impl Serialize) -> Result<Value, serde_json::Error> {
    object.serialize(Writer { kind }).map(|w| w.value)
}

/// What was written, and whether it is a map without entries (a struct without fields is not).
struct Written {
    value: Value,
    empty_map: bool,
}

impl From<Value> for Written {
    fn from(value: Value) -> Self {
        Self {
            value,
            empty_map: false,
        }
    }
}

#[derive(Clone, Copy)]
struct Writer {
    kind: &'static str,
}

impl Writer {
    fn keeps(self, of: &'static str, field: &'static str, written: &Written) -> bool {
        match &written.value {
            Value::Null => false,
            Value::String(s) if s.is_empty() => self.keeps_empty(of, field),
            Value::Array(a) if a.is_empty() => self.keeps_empty(of, field),
            Value::Object(_) if written.empty_map => self.keeps_empty(of, field),
            Value::Bool(false) => !DROPS_ZERO.contains(&(of, field)),
            Value::Number(n) if n.as_i64() == Some(0) => !DROPS_ZERO.contains(&(of, field)),
            _ => true,
        }
    }

    fn keeps_empty(self, of: &'static str, field: &'static str) -> bool {
        KEEPS_EMPTY.contains(&(of, field))
            || KEEPS_EMPTY.contains(&(of, "*"))
            || KEEPS_EMPTY_IN.contains(&(self.kind, of, field))
    }
}

macro_rules! plain {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, v: $type) -> Result<Written, Self::Error> {
            Ok(Value::from(v).into())
        })*
    };
}

impl ser::Serializer for Writer {
    type Ok = Written;
    type Error = serde_json::Error;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = ser::Impossible<Written, serde_json::Error>;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = ser::Impossible<Written, serde_json::Error>;

    plain!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_str: &str);

    fn serialize_f32(self, v: f32) -> Result<Written, Self::Error> {
        self.serialize_f64(v.into())
    }

    /// Go writes whole numbers without a point.
    fn serialize_f64(self, v: f64) -> Result<Written, Self::Error> {
        let whole = v.fract() == 0.0 && v.abs() < 9e15;
        let value = if whole {
            Value::from(v as i64)
        } else {
            Value::from(v)
        };
        Ok(value.into())
    }

    fn serialize_char(self, v: char) -> Result<Written, Self::Error> {
        Ok(Value::from(v.to_string()).into())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<Written, Self::Error> {
        Ok(Value::from(v.to_vec()).into())
    }

    fn serialize_none(self) -> Result<Written, Self::Error> {
        Ok(Value::Null.into())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Result<Written, Self::Error> {
        v.serialize(self)
    }

    fn serialize_unit(self) -> Result<Written, Self::Error> {
        Ok(Value::Null.into())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Written, Self::Error> {
        Ok(Value::Null.into())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Written, Self::Error> {
        Ok(Value::from(variant).into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        v: &T,
    ) -> Result<Written, Self::Error> {
        let written = v.serialize(self)?;
        match &written.value {
            Value::String(text) if name == "Quantity" => {
                let form = quantity::canonical(text).map_err(ser::Error::custom)?;
                Ok(Value::from(form).into())
            }
            _ => Ok(written),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        v: &T,
    ) -> Result<Written, Self::Error> {
        let mut map = Map::new();
        map.insert(variant.to_owned(), v.serialize(self)?.value);
        Ok(Value::Object(map).into())
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<List, Self::Error> {
        Ok(List {
            writer: self,
            items: Vec::with_capacity(len.unwrap_or(0)),
        })
    }

    fn serialize_tuple(self, len: usize) -> Result<List, Self::Error> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<List, Self::Error> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Self::Error> {
        Err(ser::Error::custom("no Kubernetes type has tuple variants"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Self::Error> {
        Ok(Entries {
            writer: self,
            map: Map::new(),
            key: String::new(),
        })
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields, Self::Error> {
        Ok(Fields {
            writer: self,
            name,
            map: Map::new(),
        })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Self::Error> {
        Err(ser::Error::custom("no Kubernetes type has struct variants"))
    }
}

struct List {
    writer: Writer,
    items: Vec<Value>,
}

impl List {
    fn push<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), serde_json::Error> {
        self.items.push(v.serialize(self.writer)?.value);
        Ok(())
    }
}

impl ser::SerializeSeq for List {
    type Ok = Written;
    type Error = serde_json::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Self::Error> {
        self.push(v)
    }

    fn end(self) -> Result<Written, Self::Error> {
        Ok(Value::Array(self.items).into())
    }
}

impl ser::SerializeTuple for List {
    type Ok = Written;
    type Error = serde_json::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Self::Error> {
        self.push(v)
    }

    fn end(self) -> Result<Written, Self::Error> {
        Ok(Value::Array(self.items).into())
    }
}

impl ser::SerializeTupleStruct for List {
    type Ok = Written;
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Self::Error> {
        self.push(v)
    }

    fn end(self) -> Result<Written, Self::Error> {
        Ok(Value::Array(self.items).into())
    }
}

struct Entries {
    writer: Writer,
    map: Map<String, Value>,
    key: String,
}

impl ser::SerializeMap for Entries {
    type Ok = Written;
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Self::Error> {
        match key.serialize(self.writer)?.value {
            Value::String(key) => self.key = key,
            _ => return Err(ser::Error::custom("a JSON key is a string")),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Self::Error> {
        let value = v.serialize(self.writer)?.value;
        self.map.insert(std::mem::take(&mut self.key), value);
        Ok(())
    }

    fn end(self) -> Result<Written, Self::Error> {
        Ok(Written {
            empty_map: self.map.is_empty(),
            value: Value::Object(self.map),
        })
    }
}

struct Fields {
    writer: Writer,
    name: &'static str,
    map: Map<String, Value>,
}

impl ser::SerializeStruct for Fields {
    type Ok = Written;
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        v: &T,
    ) -> Result<(), Self::Error> {
        let written = v.serialize(self.writer)?;
        let is_empty = written.value.as_array().is_some_and(Vec::is_empty);
        if is_empty && SHOWS_NULL.contains(&(self.name, key)) {
            self.map.insert(key.to_owned(), Value::Null);
        } else if self.writer.keeps(self.name, key, &written) {
            self.map.insert(key.to_owned(), written.value);
        }
        Ok(())
    }

    fn end(self) -> Result<Written, Self::Error> {
        Ok(Value::Object(self.map).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    fn round<T: serde::de::DeserializeOwned + Serialize>(kind: &'static str, v: Value) -> Value {
        let object: T = serde_json::from_value(v).expect("decodes");
        to_value(kind, &object).expect("encodes")
    }

    #[test]
    fn what_go_omits_when_empty_is_not_written() {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {}},
            "spec": {"externalIPs": [], "selector": {}, "clusterIP": "", "ports": [{"port": 80, "name": "", "nodePort": 0}]}});
        assert_eq!(
            round::<Service>("Service", service),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}})
        );
    }

    #[test]
    fn an_empty_struct_and_an_empty_map_entry_are_kept() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {},
            "spec": {"containers": [], "securityContext": {}, "volumes": [{"name": "v", "emptyDir": {}}]}});
        assert_eq!(round::<Pod>("Pod", pod.clone()), pod);
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": ""}});
        assert_eq!(round::<ConfigMap>("ConfigMap", config.clone()), config);
    }

    #[test]
    fn the_name_of_a_port_is_a_pointer_in_slices_but_not_in_endpoints() {
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {},
            "addressType": "IPv4", "ports": [{"name": "", "port": 80}]});
        assert_eq!(
            round::<EndpointSlice>("EndpointSlice", slice.clone()),
            slice
        );
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {},
            "subsets": [{"ports": [{"name": "", "port": 80}]}]});
        assert_eq!(
            round::<Endpoints>("Endpoints", endpoints)["subsets"],
            json!([{"ports": [{"port": 80}]}])
        );
    }
}
