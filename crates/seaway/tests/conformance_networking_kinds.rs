//! kubectl as it is, with the networking kinds: in their versions of today, and in those of documents that are years old.

mod support;

use support::{Host, Lab, text};

/// As the documents have it.
const OLD_INGRESS: &str = r"
apiVersion: extensions/v1beta1
kind: Ingress
metadata:
  name: my-ingress
spec:
  backend:
    serviceName: other
    servicePort: 8080
  rules:
  - host: foo.mydomain.com
    http:
      paths:
      - backend:
          serviceName: foo
          servicePort: http
  - host: mydomain.com
    http:
      paths:
      - path: /bar/*
        backend:
          serviceName: bar
          servicePort: 8080
";

const WARNING: &str = "Warning: extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress";

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
    - namespaceSelector: {matchLabels: {project: myproject}}
    ports: [{port: 6379}]
  egress:
  - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
    ports: [{protocol: TCP, port: 5978, endPort: 6000}]
";

/// What kubectl printed, and the warnings.
fn applied(lab: &Lab<'_>, arguments: &[&str], manifest: &str) -> (String, Vec<String>) {
    let output = lab.kubectl_stdin(arguments, manifest);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    let warnings = err.lines().filter(|line| line.starts_with("Warning:"));
    (out.trim().to_owned(), warnings.map(str::to_owned).collect())
}

/// The lines of a text, each with single spaces between its words.
fn lines(text: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(words).collect()
}

fn has_lines(text: &str, wanted: &[&str]) {
    let lines = lines(text);
    for line in wanted {
        assert!(lines.iter().any(|l| l == line), "no {line:?} in\n{text}");
    }
}

#[test]
fn an_ingress_of_old_documents_is_created_applied_and_shown() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    let (out, warnings) = applied(&lab, &["create", "-f", "-"], OLD_INGRESS);
    assert_eq!(out, "ingress.extensions/my-ingress created");
    assert_eq!(warnings, [WARNING]);

    // It is one object, whichever version is asked for; the newest is what kubectl takes by itself.
    has_lines(
        &lab.kubectl(&["get", "ing", "-o", "wide"]),
        &["NAME CLASS HOSTS ADDRESS PORTS AGE"],
    );
    let row = lab.kubectl(&["get", "ingresses", "--no-headers"]);
    assert!(row.contains("foo.mydomain.com,mydomain.com"), "{row}");
    let now = lab.get(&["ingress", "my-ingress"]);
    assert_eq!(now["apiVersion"], "networking.k8s.io/v1");
    assert_eq!(
        now["spec"]["rules"][0]["http"]["paths"][0]["backend"],
        serde_json::json!({"service": {"name": "foo", "port": {"name": "http"}}})
    );
    for version in ["v1beta1.networking.k8s.io", "v1beta1.extensions"] {
        let old = lab.get(&[&format!("ingresses.{version}"), "my-ingress"]);
        assert_eq!(old["spec"]["backend"]["serviceName"], "other");
        assert_eq!(
            old["spec"]["rules"][0]["http"]["paths"][0]["pathType"],
            "ImplementationSpecific"
        );
        assert_eq!(old["metadata"]["uid"], now["metadata"]["uid"]);
    }
    has_lines(
        &lab.kubectl(&["describe", "ingress", "my-ingress"]),
        &[
            "Name: my-ingress",
            "Host Path Backends",
            "foo.mydomain.com",
            "mydomain.com",
            "/bar/* bar:8080 (<error: services \"bar\" not found>)",
        ],
    );

    // Applied in the old version: first over what was created, then changed, then left alone.
    let apply = ["apply", "-f", "-"];
    let (out, _) = applied(&lab, &apply, OLD_INGRESS);
    assert_eq!(out, "ingress.extensions/my-ingress configured");
    // kubectl sends the rules again, a list that it cannot merge and that has defaults by now; nothing comes of it.
    let version = || lab.get(&["ingress", "my-ingress"])["metadata"]["resourceVersion"].clone();
    let before = version();
    let (_, warnings) = applied(&lab, &apply, OLD_INGRESS);
    assert_eq!(version(), before);
    assert!(warnings.iter().all(|w| w == WARNING), "{warnings:?}");
    let changed = OLD_INGRESS.replace("/bar/*", "/baz");
    let (out, _) = applied(&lab, &apply, &changed);
    assert_eq!(out, "ingress.extensions/my-ingress configured");
    let path = "jsonpath={.spec.rules[1].http.paths[0].path}";
    assert_eq!(
        lab.kubectl(&["get", "ingress", "my-ingress", "-o", path]),
        "/baz"
    );

    // Each version explains its own fields.
    let explain = |version: &str| {
        let version = format!("--api-version={version}");
        lab.kubectl(&["explain", "ingress.spec", &version])
    };
    for version in ["extensions/v1beta1", "networking.k8s.io/v1beta1"] {
        let text = explain(version);
        assert!(text.contains("backend\t<IngressBackend>"), "{text}");
        assert!(!text.contains("defaultBackend\t"), "{text}");
    }
    assert!(explain("networking.k8s.io/v1").contains("defaultBackend\t<IngressBackend>"));
    let port = lab.kubectl(&[
        "explain",
        "ingress.spec.backend.servicePort",
        "--api-version=extensions/v1beta1",
    ]);
    assert!(port.contains("<IntOrString>"), "{port}");

    lab.kubectl(&["delete", "ingresses.v1beta1.extensions", "my-ingress"]);
    assert_eq!(lab.kubectl(&["get", "ingress", "-o", "name"]), "");
}

#[test]
fn ingresses_are_made_by_command_and_get_the_default_class() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(
        r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: mine
  annotations: {ingressclass.kubernetes.io/is-default-class: "true"}
spec:
  controller: example.com/mine
  parameters: {apiGroup: example.com, kind: Setting, name: fast}
"#,
    );
    has_lines(
        &lab.kubectl(&["get", "ingressclass", "-o", "wide"]),
        &["NAME CONTROLLER PARAMETERS AGE"],
    );
    let row = lab.kubectl(&["get", "ingressclasses", "--no-headers"]);
    assert!(row.contains("example.com/mine"), "{row}");
    assert!(row.contains("Setting.example.com/fast"), "{row}");
    has_lines(
        &lab.kubectl(&["describe", "ingressclass", "mine"]),
        &[
            "Controller: example.com/mine",
            "APIGroup: example.com",
            "Name: fast",
        ],
    );

    lab.kubectl(&["create", "service", "clusterip", "svc1", "--tcp=8080:80"]);
    let out = lab.kubectl(&[
        "create",
        "ingress",
        "simple",
        "--rule=foo.com/bar=svc1:8080,tls=my-cert",
        "--rule=*.foo.com/x*=svc1:http",
        "--default-backend=svc1:8080",
        "--annotation=a=b",
    ]);
    assert_eq!(out.trim(), "ingress.networking.k8s.io/simple created");
    has_lines(
        &lab.kubectl(&["describe", "ing", "simple"]),
        &[
            "Ingress Class: mine",
            "Default backend: svc1:8080 ()",
            "TLS:",
            "my-cert terminates foo.com",
            "/bar svc1:8080 ()",
            "/x svc1:http ()",
            "Annotations: a: b",
        ],
    );
    let row = lab.kubectl(&["get", "ing", "--no-headers"]);
    assert_eq!(
        row.split_whitespace().take(5).collect::<Vec<_>>(),
        ["simple", "mine", "foo.com,*.foo.com", "80,", "443"]
    );
    let paths = "jsonpath={.spec.rules[*].http.paths[*].pathType}";
    assert_eq!(
        lab.kubectl(&["get", "ing", "simple", "-o", paths]),
        "Exact Prefix"
    );

    // What no Ingress can be is refused in Kubernetes' words.
    let output = lab.kubectl_output(&[
        "create",
        "ingress",
        "bad",
        "--class=Not_A_Class",
        "--rule=foo.com/=svc1:8080",
    ]);
    let refusal = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        refusal.contains("spec.ingressClassName: Invalid value: \"Not_A_Class\": a lowercase RFC 1123 subdomain must consist"),
        "{refusal}"
    );
}

#[test]
fn a_network_policy_is_described_and_its_pods_are_in_the_table() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.create(POLICY);
    let table = lab.kubectl(&["get", "netpol"]);
    has_lines(&table, &["NAME POD-SELECTOR AGE"]);
    assert!(table.contains("role=db"), "{table}");
    has_lines(
        &lab.kubectl(&["describe", "networkpolicy", "db"]),
        &[
            "PodSelector: role=db",
            "Allowing ingress traffic:",
            "To Port: 6379/TCP",
            "CIDR: 172.17.0.0/16",
            "Except: 172.17.1.0/24",
            "NamespaceSelector: project=myproject",
            "Allowing egress traffic:",
            "CIDR: 10.0.0.0/24",
            "Policy Types: Ingress, Egress",
        ],
    );
    let text = lab.kubectl(&["explain", "netpol.spec.egress.ports.endPort"]);
    assert!(text.contains("FIELD: endPort <integer>"), "{text}");
    let (out, _) = applied(&lab, &["apply", "-f", "-"], POLICY);
    assert_eq!(out, "networkpolicy.networking.k8s.io/db configured");
}

#[test]
fn events_of_the_new_group_are_seen_by_everybody() {
    let host = Host::new();
    let lab = Lab::up_with(&host, &["--nodes", "1"]);
    lab.kubectl(&["create", "configmap", "thing", "--from-literal=a=b"]);
    let uid = lab.get(&["configmap", "thing"])["metadata"]["uid"].clone();
    lab.create(&format!(
        r#"
apiVersion: events.k8s.io/v1
kind: Event
metadata: {{name: thing.1, namespace: default}}
eventTime: "2026-01-01T00:00:00.000001Z"
reportingController: example.com/watcher
reportingInstance: watcher-1
action: Looking
reason: Looked
type: Normal
note: it is still there
regarding: {{apiVersion: v1, kind: ConfigMap, name: thing, namespace: default, uid: {uid}}}
"#
    ));
    for arguments in [
        &["events", "--for", "configmap/thing"][..],
        &[
            "get",
            "events",
            "--field-selector",
            "involvedObject.name=thing",
        ],
        &[
            "get",
            "events.events.k8s.io",
            "--field-selector",
            "regarding.name=thing",
        ],
        &["describe", "configmap", "thing"],
    ] {
        let out = lab.kubectl(arguments);
        assert!(out.contains("Looked"), "{arguments:?}: {out}");
        assert!(out.contains("it is still there"), "{arguments:?}: {out}");
    }
}
