//! Tokens of ServiceAccounts: how they are had, what they say, and when they end; and questions about access.

#![allow(clippy::unwrap_used)]

mod harness;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::{Cluster, pod, text};
use serde_json::{Value, json};

const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn wish(spec: Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

async fn token(cluster: &Cluster, spec: Value) -> String {
    let (code, answer) = cluster.post(TOKEN, &wish(spec)).await;
    assert_eq!(code, 201, "{answer}");
    text(&answer, "/status/token")
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Who the server takes the bearer for; `None` when it does not know.
async fn whoami(cluster: &Cluster, token: &str) -> Option<Value> {
    let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let header = format!("Bearer {token}");
    let stranger = cluster.stranger().await;
    let (code, _, body) = cluster
        .raw(
            &stranger,
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &[("Authorization", &header)],
            question.to_string().into_bytes(),
        )
        .await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert!(matches!(code, 201 | 401), "{answer}");
    (code == 201).then(|| answer["status"]["userInfo"].clone())
}

#[tokio::test]
async fn a_token_says_what_kubernetes_says_and_makes_a_user_of_its_bearer() {
    let cluster = Cluster::start().await;
    let (code, answer) = cluster.post(TOKEN, &wish(json!({}))).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(
        answer["spec"],
        json!({"audiences": [ISSUER], "expirationSeconds": 3600, "boundObjectRef": null})
    );
    assert_eq!(
        (
            text(&answer, "/metadata/name"),
            text(&answer, "/metadata/namespace")
        ),
        ("default".into(), "default".into())
    );
    let token = text(&answer, "/status/token");
    let claims = claims(&token);
    let (_, account) = cluster
        .get("/api/v1/namespaces/default/serviceaccounts/default")
        .await;
    let uid = text(&account, "/metadata/uid");
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], json!([ISSUER]));
    assert_eq!(claims["sub"], "system:serviceaccount:default:default");
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        3600
    );
    assert_eq!(
        claims["kubernetes.io"],
        json!({"namespace": "default", "serviceaccount": {"name": "default", "uid": uid}})
    );
    let user = whoami(&cluster, &token).await.unwrap();
    assert_eq!(
        (text(&user, "/username"), text(&user, "/uid")),
        ("system:serviceaccount:default:default".to_owned(), uid)
    );
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    assert_eq!(whoami(&cluster, "nonsense").await, None);
    assert_eq!(whoami(&cluster, &format!("{token}x")).await, None);
    // The key outlives the server, and so do its tokens.
    let cluster = cluster.restart().await;
    assert!(whoami(&cluster, &token).await.is_some());
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to_and_is_for_its_audience_only() {
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let (code, made) = cluster.post(pods, &pod("p")).await;
    assert_eq!(code, 201, "{made}");
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": made["metadata"]["uid"]}});
    let bearer = token(&cluster, bound).await;
    let user = whoami(&cluster, &bearer).await.unwrap();
    assert_eq!(
        user["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["p"])
    );
    assert_eq!(
        cluster.delete(&format!("{pods}/p"), &Value::Null).await.0,
        200
    );
    assert_eq!(whoami(&cluster, &bearer).await, None);

    let other = token(&cluster, json!({"audiences": ["vault"]})).await;
    assert_eq!(whoami(&cluster, &other).await, None);
    let review = |token: &str, audiences: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (code, answer) = cluster
        .post(reviews, &review(&other, json!(["vault", "x"])))
        .await;
    assert_eq!(
        (
            code,
            &answer["status"]["authenticated"],
            &answer["status"]["audiences"]
        ),
        (201, &json!(true), &json!(["vault"]))
    );
    let (_, answer) = cluster.post(reviews, &review(&other, json!([]))).await;
    assert_eq!(
        text(&answer, "/status/error"),
        format!("token audiences [\"vault\"] is invalid for the target audiences [\"{ISSUER}\"]")
    );
    let (_, answer) = cluster
        .post(reviews, &review("nonsense", Value::Null))
        .await;
    assert_eq!(answer["status"], json!({"user": {}}));

    let (code, _) = cluster
        .delete(
            "/api/v1/namespaces/default/serviceaccounts/default",
            &Value::Null,
        )
        .await;
    assert_eq!(code, 200);
    let (_, answer) = cluster
        .post(reviews, &review(&other, json!(["vault"])))
        .await;
    assert_eq!(
        text(&answer, "/status/error"),
        "serviceaccounts \"default\" not found"
    );
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_in_kubernetes_words() {
    let cluster = Cluster::start().await;
    for (spec, code, message) in [
        (
            json!({"expirationSeconds": 5}),
            422,
            "TokenRequest.authentication.k8s.io \"default\" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}),
            404,
            "pods \"none\" not found",
        ),
        (
            json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}),
            400,
            "cannot bind token to object of type apps/v1, Kind=Deployment",
        ),
    ] {
        let (got, refusal) = cluster.post(TOKEN, &wish(spec)).await;
        assert_eq!((got, text(&refusal, "/message").as_str()), (code, message));
    }
    let path = "/api/v1/namespaces/default/serviceaccounts/none/token";
    assert_eq!(cluster.post(path, &wish(json!({}))).await.0, 404);
}

#[tokio::test]
async fn everybody_may_do_everything_and_the_answer_says_why() {
    let cluster = Cluster::start().await;
    let ask = |kind: &str, spec: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
    let attributes = json!({"verb": "delete", "resource": "nodes", "namespace": "default"});
    for (path, question) in [
        (
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            ask(
                "SelfSubjectAccessReview",
                json!({"resourceAttributes": attributes}),
            ),
        ),
        (
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            ask(
                "SubjectAccessReview",
                json!({"user": "u", "resourceAttributes": attributes}),
            ),
        ),
        (
            "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews",
            ask(
                "LocalSubjectAccessReview",
                json!({"user": "u", "resourceAttributes": attributes}),
            ),
        ),
    ] {
        let (code, answer) = cluster.post(path, &question).await;
        assert_eq!(
            (code, &answer["status"]["allowed"]),
            (201, &json!(true)),
            "{answer}"
        );
        assert!(text(&answer, "/status/reason").contains("not enforced"));
        assert_eq!(cluster.get(path).await.0, 405);
    }
    let (code, refusal) = cluster
        .post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &ask("SelfSubjectAccessReview", json!({})),
        )
        .await;
    assert_eq!(
        (code, text(&refusal, "/message").as_str()),
        (
            422,
            "SelfSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        )
    );
    let rules = ask("SelfSubjectRulesReview", json!({"namespace": "default"}));
    let (_, answer) = cluster
        .post(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            &rules,
        )
        .await;
    assert_eq!(
        answer["status"]["resourceRules"],
        json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])
    );
    let (_, list) = cluster.get("/apis/authorization.k8s.io/v1").await;
    let verbs: Vec<&Value> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["verbs"])
        .collect();
    assert_eq!(verbs, [&json!(["create"]); 4]);
    let (_, core) = cluster.get("/api/v1").await;
    let entry = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["name"] == "serviceaccounts/token")
        .unwrap();
    assert_eq!(
        *entry,
        json!({"name": "serviceaccounts/token", "singularName": "", "namespaced": true, "group": "authentication.k8s.io",
            "version": "v1", "kind": "TokenRequest", "verbs": ["create"]})
    );
}

#[tokio::test]
async fn others_can_check_tokens_by_themselves() {
    let cluster = Cluster::start().await;
    let (code, configuration) = cluster.get("/.well-known/openid-configuration").await;
    assert_eq!(
        (code, text(&configuration, "/issuer").as_str()),
        (200, ISSUER)
    );
    assert!(text(&configuration, "/jwks_uri").ends_with("/openid/v1/jwks"));
    let (code, keys) = cluster.get("/openid/v1/jwks").await;
    assert_eq!(code, 200);
    let bearer = token(&cluster, json!({})).await;
    let head = bearer.split('.').next().unwrap();
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
    assert_eq!(head["kid"], keys["keys"][0]["kid"]);
    assert_eq!(head["alg"], "ES256");
}
