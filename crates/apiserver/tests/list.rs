//! Listing: versions, pages and forms, over real HTTPS.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeSet;
use std::io::Read;

use harness::{Cluster, config_map, text};
use seaway_apiserver::Tuning;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";

async fn fill(cluster: &Cluster, names: &[&str]) {
    for name in names {
        let (code, made) = cluster
            .post(
                MAPS,
                &config_map(name, json!({"kind": "made", "name": name})),
            )
            .await;
        assert_eq!(code, 201, "{made}");
    }
}

fn names(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| text(item, "/metadata/name"))
        .collect()
}

#[tokio::test]
async fn pages_show_what_there_was_when_the_first_was_asked_for() {
    let cluster = Cluster::start().await;
    fill(&cluster, &["a", "b", "c", "d"]).await;
    let (_, first) = cluster.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What happens now is of a later version.
    cluster.delete(&format!("{MAPS}/c"), &Value::Null).await;
    cluster.delete(&format!("{MAPS}/a"), &Value::Null).await;
    fill(&cluster, &["bb", "e"]).await;
    let token = text(&first, "/metadata/continue");
    let (_, second) = cluster
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["remainingItemCount"], 1);
    assert_eq!(
        text(&second, "/metadata/resourceVersion"),
        text(&first, "/metadata/resourceVersion")
    );
    let token = text(&second, "/metadata/continue");
    let (_, last) = cluster
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await;
    assert_eq!(names(&last), ["kube-root-ca.crt"]);
    assert_eq!(last["metadata"].get("continue"), None);
    assert_eq!(last["metadata"].get("remainingItemCount"), None);
}

#[tokio::test]
async fn a_selection_is_paged_without_saying_how_much_is_left() {
    let cluster = Cluster::start().await;
    fill(&cluster, &["a", "b", "c", "d"]).await;
    let path = format!("{MAPS}?limit=1&labelSelector=name%20in%20(b,d)");
    let (_, first) = cluster.get(&path).await;
    assert_eq!(names(&first), ["b"]);
    assert_eq!(first["metadata"].get("remainingItemCount"), None);
    let token = text(&first, "/metadata/continue");
    let (_, second) = cluster.get(&format!("{path}&continue={token}")).await;
    assert_eq!(names(&second), ["d"]);
    // Something is behind it, though nothing of the selection: Kubernetes finds that out with the next page.
    let token = text(&second, "/metadata/continue");
    let (_, third) = cluster.get(&format!("{path}&continue={token}")).await;
    assert_eq!(
        (names(&third).len(), third["metadata"].get("continue")),
        (0, None)
    );
}

#[tokio::test]
async fn a_page_whose_version_is_gone_can_be_continued_inconsistently() {
    let mut tuning = Tuning::default();
    tuning.store.limits.events = 3;
    let cluster = Cluster::start_with(tuning).await;
    fill(&cluster, &["a", "b", "c", "d"]).await;
    let (_, first) = cluster.get(&format!("{MAPS}?limit=2")).await;
    let token = text(&first, "/metadata/continue");
    fill(&cluster, &["bb", "e", "f", "g"]).await;
    let (code, gone) = cluster
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await;
    assert_eq!((code, text(&gone, "/reason").as_str()), (410, "Expired"));
    assert!(text(&gone, "/message").starts_with(
        "The provided continue parameter is too old to display a consistent list result."
    ));
    let token = text(&gone, "/metadata/continue");
    let (code, rest) = cluster
        .get(&format!("{MAPS}?limit=3&continue={token}"))
        .await;
    assert_eq!(
        (code, names(&rest)),
        (200, vec!["bb".into(), "c".into(), "d".into()])
    );
    // Without a limit there is no other token to go on with.
    let old = text(&first, "/metadata/continue");
    let (code, gone) = cluster.get(&format!("{MAPS}?continue={old}")).await;
    assert_eq!(code, 410);
    assert_eq!(
        text(&gone, "/message"),
        "The resourceVersion for the provided list is too old."
    );
    assert_eq!(gone["metadata"], json!({}));
}

#[tokio::test]
async fn a_version_is_exact_not_older_or_whatever_is_there() {
    let cluster = Cluster::start().await;
    fill(&cluster, &["a"]).await;
    let (_, list) = cluster.get(MAPS).await;
    let version = text(&list, "/metadata/resourceVersion");
    fill(&cluster, &["b"]).await;
    let now = text(&cluster.get(MAPS).await.1, "/metadata/resourceVersion");
    for (query, newest) in [
        (
            format!("resourceVersion={version}&resourceVersionMatch=Exact"),
            false,
        ),
        // Of old: a limit means exactly that version.
        (format!("resourceVersion={version}&limit=10"), false),
        (format!("resourceVersion={version}"), true),
        (
            format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan"),
            true,
        ),
        (
            format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan&limit=10"),
            true,
        ),
        ("resourceVersion=0".to_owned(), true),
        ("resourceVersion=".to_owned(), true),
    ] {
        let (code, list) = cluster.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(code, 200, "{list}");
        let told = text(&list, "/metadata/resourceVersion");
        assert_eq!(
            told,
            if newest { now.clone() } else { version.clone() },
            "{query}"
        );
        assert_eq!(names(&list).contains(&"b".to_owned()), newest, "{query}");
    }
    // Whatever is there comes as a whole.
    let (_, whole) = cluster
        .get(&format!("{MAPS}?resourceVersion=0&limit=1"))
        .await;
    assert_eq!(names(&whole).len(), 3);
}

#[tokio::test]
async fn a_version_that_is_not_there_yet_is_a_timeout_with_its_cause() {
    let cluster = Cluster::start().await;
    let far = 1_000_000;
    for query in [
        format!("?resourceVersion={far}"),
        format!("?resourceVersion={far}&resourceVersionMatch=NotOlderThan"),
        format!("?resourceVersion={far}&resourceVersionMatch=Exact"),
        format!("/kube-root-ca.crt?resourceVersion={far}"),
    ] {
        // A client library would ask again.
        let answer = cluster.ask(&format!("{MAPS}{query}"), "").await;
        let refused = answer.json();
        assert_eq!(
            (answer.code, text(&refused, "/reason").as_str()),
            (504, "Timeout"),
            "{query}"
        );
        assert!(
            text(&refused, "/message")
                .starts_with("Timeout: Too large resource version: 1000000, current: "),
            "{refused}"
        );
        assert_eq!(
            refused["details"]["causes"],
            json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}])
        );
    }
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_in_kubernetes_order() {
    let cluster = Cluster::start().await;
    for (query, code, message) in [
        (
            "limit=x&labelSelector=%2C%2C",
            400,
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "timeoutSeconds=",
            400,
            "strconv.ParseInt: parsing \"\": invalid syntax",
        ),
        (
            "fieldSelector=nothing&resourceVersionMatch=Exact",
            400,
            "invalid selector: 'nothing'; can't understand 'nothing'",
        ),
        (
            "fieldSelector=spec.none%3Da&resourceVersionMatch=Exact",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersion=1&resourceVersionMatch=Newest",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: \"Newest\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
        ),
        (
            "sendInitialEvents=true",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            "watch=1&sendInitialEvents=true",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            "resourceVersion=-1",
            500,
            "resourceVersion: Invalid value: \"-1\": strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            "continue=rubbish",
            400,
            "invalid continue token: continue key is not valid: invalid character '®' looking for beginning of value",
        ),
        (
            "timeout=soon",
            400,
            "invalid timeout specified in the request URL - time: invalid duration \"soon\"",
        ),
    ] {
        let (got, refused) = cluster.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(
            (got, text(&refused, "/message").as_str()),
            (code, message),
            "{query}"
        );
    }
    let (_, first) = cluster.get("/api/v1/namespaces?limit=1").await;
    let token = text(&first, "/metadata/continue");
    let (code, refused) = cluster
        .get(&format!(
            "/api/v1/namespaces?resourceVersion=5&continue={token}"
        ))
        .await;
    assert_eq!(
        (code, text(&refused, "/message").as_str()),
        (
            400,
            "specifying resource version is not allowed when using continue"
        )
    );
}

#[tokio::test]
async fn objects_come_as_tables_metadata_or_yaml() {
    let cluster = Cluster::start().await;
    fill(&cluster, &["a"]).await;
    let get = async |path: &str, accept: &str| {
        cluster
            .call("GET", path, &[("Accept", accept)], &Value::Null)
            .await
    };
    let object = format!("{MAPS}/a");
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let partials = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (_, one) = get(&object, partial).await;
    let (_, all) = get(MAPS, partials).await;
    assert_eq!(text(&one, "/kind"), "PartialObjectMetadata");
    assert_eq!(text(&one, "/metadata/labels/name"), "a");
    assert_eq!(one.get("data"), None);
    assert_eq!(text(&all, "/kind"), "PartialObjectMetadataList");
    assert_eq!(all["items"][0], one);
    for (path, accept, message) in [
        (
            MAPS,
            partial,
            "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
        ),
        (
            object.as_str(),
            partials,
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
        ),
        (
            object.as_str(),
            "application/json;as=Chair;v=v1;g=meta.k8s.io",
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            object.as_str(),
            "text/html",
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
    ] {
        let (code, refused) = get(path, accept).await;
        assert_eq!(
            (code, text(&refused, "/message").as_str()),
            (406, message),
            "{accept}"
        );
    }
    let (_, old) = get(MAPS, "application/json;as=Table;v=v1beta1;g=meta.k8s.io").await;
    assert_eq!(text(&old, "/apiVersion"), "meta.k8s.io/v1beta1");
    assert_eq!(
        text(&old, "/rows/0/object/apiVersion"),
        "meta.k8s.io/v1beta1"
    );
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let (_, bare) = get(&format!("{MAPS}?includeObject=None"), table).await;
    assert_eq!(bare["rows"][0]["object"], Value::Null);
    let (_, full) = get(&format!("{MAPS}?includeObject=Object"), table).await;
    assert_eq!(text(&full, "/rows/0/object/kind"), "ConfigMap");
    let (code, refused) = get(&format!("{MAPS}?includeObject=All"), table).await;
    assert_eq!(code, 400);
    assert_eq!(
        text(&refused, "/message"),
        "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', 'None', or empty"
    );
    // A refusal comes in the form that was asked for, too.
    let (code, yaml) = get(&format!("{MAPS}/none"), "application/yaml").await;
    assert_eq!(code, 404);
    assert!(
        yaml.as_str().unwrap().contains("reason: NotFound"),
        "{yaml}"
    );
}

#[tokio::test]
async fn a_long_list_is_compressed_for_who_can_read_it_and_indented_for_people() {
    let cluster = Cluster::start().await;
    for n in 0..40 {
        let mut map = config_map(&format!("m{n}"), json!({}));
        map["data"] = json!({"text": "lorem ipsum ".repeat(500)});
        cluster.post(MAPS, &map).await;
    }
    let get = async |headers: &[(&str, &str)], path: &str| {
        cluster
            .raw(&cluster.client, "GET", path, headers, Vec::new())
            .await
    };
    let (_, headers, plain) = get(&[], MAPS).await;
    assert_eq!(headers.get("content-encoding"), None);
    assert_eq!(headers["cache-control"], "no-cache, private");
    let (_, headers, packed) = get(&[("Accept-Encoding", "deflate, gzip")], MAPS).await;
    assert_eq!(headers["content-encoding"], "gzip");
    assert_eq!(headers["vary"], "Accept-Encoding");
    assert!(packed.len() * 4 < plain.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain);
    // What is short is not worth it.
    let (_, headers, _) = get(&[("Accept-Encoding", "gzip")], &format!("{MAPS}/m0")).await;
    assert_eq!(headers.get("content-encoding"), None);
    let (_, headers, _) = get(&[("Accept-Encoding", "gzip;q=1")], MAPS).await;
    assert_eq!(headers.get("content-encoding"), None);

    let (_, _, indented) = get(&[("User-Agent", "curl/8.5.0")], MAPS).await;
    let value: Value = serde_json::from_slice(&plain).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&indented).unwrap(), value);
    let begin = String::from_utf8_lossy(&indented[..40]).into_owned();
    assert!(
        begin.starts_with("{\n  \"kind\": \"ConfigMapList\",\n  \"apiVers"),
        "{begin}"
    );
    let (_, _, asked) = get(&[], &format!("{MAPS}/m0?pretty=true")).await;
    assert!(asked.starts_with(b"{\n  \"kind\": \"ConfigMap\",\n"));
    let (_, _, not) = get(
        &[("User-Agent", "curl/8.5.0")],
        &format!("{MAPS}/m0?pretty=false"),
    )
    .await;
    assert!(not.starts_with(b"{\"kind\""));
}

#[tokio::test]
async fn pages_of_any_size_together_are_the_list() {
    let cluster = Cluster::start().await;
    let made: Vec<String> = (0..23).map(|n| format!("m{n:02}")).collect();
    fill(
        &cluster,
        &made.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    for limit in [1, 2, 7, 23, 24, 25, 500] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let (code, page) = cluster
                .get(&format!(
                    "/api/v1/configmaps?limit={limit}&continue={token}"
                ))
                .await;
            assert_eq!(code, 200, "{page}");
            let page_names: Vec<String> = page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|i| text(i, "/metadata/namespace") + "/" + &text(i, "/metadata/name"))
                .collect();
            assert!(page_names.len() <= limit);
            seen.extend(page_names);
            token = text(&page, "/metadata/continue");
            if token.is_empty() {
                break;
            }
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(
            (seen.len(), distinct.len()),
            (27, 27),
            "in pages of {limit}"
        );
    }
}
