//! kubectl as it is, against the server: the judge is someone else's client.

#![allow(clippy::unwrap_used)]

mod harness;

use std::path::PathBuf;
use std::process::Command;

use harness::Cluster;

struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Runs it and returns whether it succeeded and all that it wrote.
    async fn try_run(&self, arguments: &str, input: &str) -> (bool, String) {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.kubeconfig.parent().unwrap());
        command
            .args(arguments.split(' '))
            .arg("--request-timeout=20s");
        let input = input.to_owned();
        let run = move || {
            use std::io::Write as _;
            use std::process::Stdio;
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("kubectl is needed for this test");
            child
                .stdin
                .take()
                .unwrap()
                .write_all(input.as_bytes())
                .unwrap();
            child.wait_with_output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), text)
    }

    async fn run(&self, arguments: &str) -> String {
        self.feed(arguments, "").await
    }

    async fn feed(&self, arguments: &str, input: &str) -> String {
        let (succeeded, text) = self.try_run(arguments, input).await;
        assert!(succeeded, "kubectl {arguments}: {text}");
        text
    }
}

async fn start() -> (Cluster, Kubectl) {
    let cluster = Cluster::start().await;
    let kubeconfig = cluster.kubeconfig();
    (cluster, Kubectl { kubeconfig })
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x:1, ports: [{containerPort: 80}]}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_created_applied_changed_and_deleted() {
    let (_cluster, kubectl) = start().await;
    assert!(
        kubectl
            .feed("apply -f -", DEPLOYMENT)
            .await
            .contains("deployment.apps/web created")
    );
    assert!(
        kubectl
            .feed("apply -f -", DEPLOYMENT)
            .await
            .contains("unchanged")
    );
    let other = DEPLOYMENT.replace("x:1", "x:2");
    assert!(
        kubectl
            .feed("apply -f -", &other)
            .await
            .contains("configured")
    );
    let image = "get deployment web -o jsonpath={.spec.template.spec.containers[*].image}";
    assert_eq!(kubectl.run(image).await, "x:2");
    kubectl.run("scale deployment web --replicas=5").await;
    assert_eq!(
        kubectl
            .run("get deployment web -o jsonpath={.spec.replicas}")
            .await,
        "5"
    );
    kubectl.run("label deployment web tier=front").await;
    kubectl.run("annotate deployment web note=x").await;
    kubectl.run("set image deployment/web c=x:3").await;
    kubectl
        .run("patch deployment web -p {\"spec\":{\"replicas\":1}}")
        .await;
    assert!(
        kubectl
            .run("get deployments -l tier=front")
            .await
            .contains("web    0/1")
    );
    kubectl
        .run("expose deployment web --port=80 --target-port=8080")
        .await;
    let described = kubectl.run("describe service web").await;
    assert!(
        described.contains("TargetPort:") && described.contains("8080/TCP"),
        "{described}"
    );
    kubectl.run("rollout restart deployment web").await;
    assert!(
        kubectl
            .run("delete deployment web")
            .await
            .contains("deleted")
    );
    let (succeeded, gone) = kubectl.try_run("get deployment web", "").await;
    assert!(!succeeded);
    assert!(
        gone.contains("Error from server (NotFound): deployments.apps \"web\" not found"),
        "{gone}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_make_objects_themselves_work() {
    let (_cluster, kubectl) = start().await;
    kubectl.run("create namespace n").await;
    kubectl
        .run("create deployment d --image=x:1 --replicas=2 --port=80")
        .await;
    assert_eq!(kubectl.run("get deployment d -o jsonpath={.spec.replicas},{.spec.template.spec.containers[0].ports[0].containerPort}").await, "2,80");
    kubectl.run("create configmap c --from-literal=a=b").await;
    assert_eq!(
        kubectl.run("get configmap c -o jsonpath={.data}").await,
        "{\"a\":\"b\"}"
    );
    kubectl
        .run("create secret generic s --from-literal=a=b")
        .await;
    assert_eq!(
        kubectl.run("get secret s -o jsonpath={.data.a}").await,
        "Yg=="
    );
    kubectl.run("create service nodeport s --tcp=80:web").await;
    assert_eq!(
        kubectl
            .run("get service s -o jsonpath={.spec.ports[0].targetPort}")
            .await,
        "web"
    );
    kubectl
        .run("run p --image=x:1 --labels=a=b --env=K=V")
        .await;
    assert!(
        kubectl
            .run("get pods")
            .await
            .contains("p      0/1     Pending")
    );
    kubectl.run("delete pod p --now").await;
    assert!(
        kubectl
            .run("get all -A")
            .await
            .contains("service/kubernetes")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_manifest_is_named() {
    let (_cluster, kubectl) = start().await;
    let wrong = DEPLOYMENT.replace("replicas: 2", "replicaz: 2");
    let (succeeded, text) = kubectl.try_run("create -f -", &wrong).await;
    assert!(!succeeded);
    assert!(text.contains("unknown field \"spec.replicaz\""), "{text}");
    let wrong = DEPLOYMENT.replace("containerPort: 80", "containerPort: 80000");
    let (succeeded, text) = kubectl.try_run("create -f -", &wrong).await;
    assert!(!succeeded);
    assert!(
        text.contains("must be between 1 and 65535, inclusive"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_can_be_found_out() {
    let (_cluster, kubectl) = start().await;
    let resources = kubectl.run("api-resources").await;
    for kind in ["deployments", "endpointslices", "services"] {
        assert!(resources.contains(kind), "{resources}");
    }
    assert!(
        kubectl
            .run("api-versions")
            .await
            .contains("discovery.k8s.io/v1")
    );
    let explained = kubectl.run("explain service.spec.clusterIP").await;
    assert!(
        explained.contains("FIELD: clusterIP <string>"),
        "{explained}"
    );
    assert!(kubectl.run("version").await.contains("v1.36.0+seaway"));
    kubectl.run("events").await;
    let (succeeded, text) = kubectl
        .try_run("wait --for=condition=Ready --timeout=1s pod/none", "")
        .await;
    assert!(!succeeded && text.contains("not found"), "{text}");
}

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, description: When it runs.}
              replicas: {type: integer, minimum: 0, default: 1}
    subresources:
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_is_used_like_any_other() {
    let (_cluster, kubectl) = start().await;
    kubectl.feed("create -f -", DEFINITION).await;
    kubectl
        .run("wait --for=condition=established --timeout=20s crd/crontabs.stable.example.com")
        .await;
    let explained = kubectl.run("explain crontab.spec").await;
    assert!(explained.contains("When it runs."), "{explained}");
    let table = "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {name: a}\nspec: {cronSpec: \"* *\"}\n";
    for told in ["created", "unchanged"] {
        let applied = kubectl.feed("apply -f -", table).await;
        assert!(applied.contains(told), "{applied}");
    }
    let shown = kubectl.run("get ct").await;
    assert!(shown.starts_with("NAME   SPEC"), "{shown}");
    kubectl.run("scale ct/a --replicas=3").await;
    let replicas = kubectl.run("get ct a -o jsonpath={.spec.replicas}").await;
    assert_eq!(replicas, "3");
    kubectl.run("describe ct a").await;
    let (created, told) = kubectl
        .try_run("create -f -", &table.replace("\"* *\"", "7"))
        .await;
    assert!(
        !created && told.contains("in body must be of type string"),
        "{told}"
    );
    kubectl.run("delete crd crontabs.stable.example.com").await;
    let (found, _) = kubectl.try_run("get ct", "").await;
    assert!(!found);
}

#[tokio::test]
async fn server_side_apply_takes_over_from_client_side_apply() {
    let (_cluster, kubectl) = start().await;
    let map = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\ndata:\n  k: {value}\n")
    };
    kubectl.feed("apply -f -", &map("client")).await;
    let said = kubectl
        .feed("apply --server-side -f -", &map("server"))
        .await;
    assert!(
        said.contains("configmap/owned serverside-applied"),
        "{said}"
    );
    let shown = kubectl
        .run("get configmap owned -o yaml --show-managed-fields")
        .await;
    assert!(shown.contains("k: server"), "{shown}");
    assert!(shown.contains("manager: kubectl\n"), "{shown}");
    assert!(
        !shown.contains("manager: kubectl-client-side-apply"),
        "{shown}"
    );
    // Somebody else is told whose it is, and how to take it.
    let other = "apply --server-side --field-manager=other -f -";
    let (succeeded, refused) = kubectl.try_run(other, &map("other")).await;
    assert!(!succeeded, "{refused}");
    assert!(
        refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .data.k"),
        "{refused}"
    );
    let said = kubectl
        .feed(
            "apply --server-side --force-conflicts --field-manager=other -f -",
            &map("other"),
        )
        .await;
    assert!(said.contains("serverside-applied"), "{said}");
    // The same again changes nothing, and says so.
    let diff = kubectl
        .feed(
            "apply --server-side --dry-run=server --field-manager=other -f -",
            &map("other"),
        )
        .await;
    assert!(
        diff.contains("serverside-applied (server dry run)"),
        "{diff}"
    );
    let (_, unknown) = kubectl
        .try_run(
            "create -f - --validate=strict",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndta: {}\n",
        )
        .await;
    assert!(unknown.contains("unknown field \"dta\""), "{unknown}");
}
