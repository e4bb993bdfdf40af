//! Custom resources as kubectl uses them, against a lab: from the definition to its end.

mod support;

use support::{Host, Lab, text, wait};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
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
            description: What is wanted of the table.
            required: [cronSpec]
            properties:
              cronSpec: {type: string, pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$', description: When it runs.}
              image: {type: string, default: busybox}
              replicas: {type: integer, minimum: 0, maximum: 10, default: 1}
          status:
            type: object
            properties: {replicas: {type: integer}, labelSelector: {type: string}}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.labelSelector}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Image, type: string, jsonPath: .spec.image, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
"#;

fn table(name: &str) -> String {
    format!(
        "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec: {{cronSpec: \"* * * * */5\"}}\n"
    )
}

fn defined(lab: &Lab<'_>) {
    lab.create(DEFINITION);
    lab.kubectl(&[
        "wait",
        "--for=condition=established",
        "--timeout=20s",
        "crd/crontabs.stable.example.com",
    ]);
}

#[test]
fn a_custom_resource_is_used_like_any_other() {
    let host = Host::new();
    let lab = Lab::up(&host);
    defined(&lab);
    let explained = lab.kubectl(&["explain", "crontab.spec"]);
    assert!(
        explained.contains("What is wanted of the table."),
        "{explained}"
    );
    assert!(
        explained.contains("cronSpec\t<string> -required-"),
        "{explained}"
    );
    assert!(
        lab.kubectl(&["api-resources", "--api-group=stable.example.com"])
            .contains("crontabs")
    );
    assert!(
        lab.create(&table("a"))
            .contains("crontab.stable.example.com/a created")
    );
    let shown = lab.kubectl(&["get", "ct"]);
    let lines: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| {
            line.split("   ")
                .map(str::trim)
                .filter(|w| !w.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(lines[0], ["NAME", "SPEC", "REPLICAS", "AGE"], "{shown}");
    assert_eq!(lines[1][..3], ["a", "* * * * */5", "1"], "{shown}");
    let wide = lab.kubectl(&["get", "crontabs", "-o", "wide"]);
    assert!(wide.contains("IMAGE") && wide.contains("busybox"), "{wide}");
    assert!(
        lab.kubectl(&["get", "all"])
            .contains("crontab.stable.example.com/a")
    );
    let described = lab.kubectl(&["describe", "crontab", "a"]);
    assert!(described.contains("Cron Spec:  * * * * */5"), "{described}");

    lab.kubectl(&["scale", "ct/a", "--replicas=3"]);
    assert_eq!(
        lab.kubectl(&["get", "ct", "a", "-o", "jsonpath={.spec.replicas}"]),
        "3"
    );
    lab.kubectl(&[
        "patch",
        "ct",
        "a",
        "--type=merge",
        "-p",
        r#"{"spec":{"image":"mine"}}"#,
    ]);
    assert_eq!(
        lab.kubectl(&["get", "ct", "a", "-o", "jsonpath={.spec.image}"]),
        "mine"
    );
    lab.kubectl(&["label", "ct", "a", "tier=front"]);
    assert!(
        lab.kubectl(&["get", "ct", "-l", "tier=front", "-o", "name"])
            .contains("/a")
    );
    let mut edit = lab.kubectl_command(&["edit", "ct", "a"]);
    edit.env("KUBE_EDITOR", "sed -i s/busybox/none/;s/mine/edited/");
    let edited = edit.output().expect("kubectl runs");
    assert!(edited.status.success(), "{}", text(&edited.stderr));
    assert_eq!(
        lab.kubectl(&["get", "ct", "a", "-o", "jsonpath={.spec.image}"]),
        "edited"
    );
    for told in ["created", "unchanged"] {
        let applied = lab.kubectl_stdin(&["apply", "-f", "-"], &table("b"));
        assert!(
            text(&applied.stdout).contains(told),
            "{}",
            text(&applied.stderr)
        );
    }
    let refused = lab.kubectl_stdin(
        &["create", "-f", "-"],
        &table("c").replace("* * * * */5", "never"),
    );
    assert!(!refused.status.success());
    let told = text(&refused.stderr);
    assert!(
        told.contains(
            "spec.cronSpec: Invalid value: \"never\": spec.cronSpec in body should match"
        ),
        "{told}"
    );
    lab.kubectl(&["delete", "ct", "b"]);
    assert!(!lab.kubectl(&["get", "ct", "-o", "name"]).contains("/b"));
}

#[test]
fn a_definition_that_is_deleted_takes_its_objects_with_it() {
    let host = Host::new();
    let lab = Lab::up(&host);
    defined(&lab);
    lab.create(&table("a"));
    lab.kubectl(&[
        "delete",
        "crd",
        "crontabs.stable.example.com",
        "--timeout=30s",
    ]);
    assert!(!lab.kubectl_output(&["get", "ct"]).status.success());
    defined(&lab);
    assert_eq!(lab.kubectl(&["get", "ct", "-o", "name"]), "");
}

#[test]
fn a_namespace_that_is_deleted_takes_custom_resources_with_it() {
    let host = Host::new();
    let lab = Lab::up(&host);
    defined(&lab);
    lab.kubectl(&["create", "namespace", "short-lived"]);
    let made = lab.kubectl_stdin(&["create", "-n", "short-lived", "-f", "-"], &table("a"));
    assert!(made.status.success(), "{}", text(&made.stderr));
    lab.kubectl(&["delete", "namespace", "short-lived", "--timeout=60s"]);
    wait("the object is gone with its namespace", || {
        match lab.kubectl(&["get", "ct", "-A", "-o", "name"]) {
            none if none.is_empty() => Ok(()),
            some => Err(some),
        }
    });
}
