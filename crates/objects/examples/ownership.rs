//! What it costs to know who owns which field: `cargo run --release -p seaway-objects --example ownership`.
//! Prints microseconds for `managedFields` of a creation, of an update that changes one field, and of an apply.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use seaway_objects::kind::Kind;
use seaway_objects::kinds;
use seaway_objects::managed::{Schema, Set, Types, Writable, Write};
use serde_json::{Value, json};

const ROUNDS: u32 = 2_000;

struct Only<'a>(&'a dyn Kind, &'a str);

impl Types for Only<'_> {
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>> {
        (api_version == self.1).then(|| self.0.typed())
    }

    fn convert(&self, _object: &Value, _api_version: &str) -> Option<Value> {
        None
    }
}

fn time(what: &str, mut run: impl FnMut()) {
    run();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        run();
    }
    println!(
        "{what}: {:.1} µs",
        start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "d", "labels": {"app": "a"}},
        "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "labels": {"app": "a", "tier": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}, {"name": "side", "image": "i"}],
            "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "k", "operator": "Exists"}]}});
    for (plural, object) in [("services", service), ("pods", pod)] {
        let kind = kinds::find("", "v1", plural).ok_or("no such kind")?;
        let mut object = kind.decode(object)?;
        kind.default(&mut object);
        let types = Only(&*kind, "v1");
        let writable = Writable::AllBut(Set::of_fields(&[&["status"]]));
        let write = Write {
            types: &types,
            api_version: "v1",
            kind: kind.names().kind,
            subresource: "",
            writable: &writable,
            manager: "kubectl",
            now: "2026-01-01T00:00:00Z",
        };
        let managed = write.updated(None, None, &object, None);
        let mut changed = object.clone();
        changed["metadata"]["labels"]["app"] = "b".into();
        time(&format!("{plural}: create"), || {
            black_box(write.updated(None, None, &object, None));
        });
        time(&format!("{plural}: update of one label"), || {
            black_box(write.updated(Some(&object), managed.as_ref(), &changed, None));
        });
        let config = json!({"apiVersion": "v1", "kind": kind.names().kind, "metadata": {"name": "x", "labels": {"app": "c"}}});
        time(&format!("{plural}: apply of one label"), || {
            let _ = black_box(write.applied(Some(&object), managed.as_ref(), &config, true));
        });
        time(
            &format!("{plural}: reading and writing the object through its type, for comparison"),
            || {
                let _ = black_box(kind.decode(object.clone()));
            },
        );
    }
    Ok(())
}
