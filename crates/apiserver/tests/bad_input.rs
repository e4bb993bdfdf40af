//! What is not a good request is refused as Kubernetes refuses it, and the server goes on serving others.

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::{Cluster, config_map, text};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";
const JSON: &str = "application/json";

/// Somebody who behaves is served.
async fn serves(cluster: &Cluster) {
    let (code, _) = cluster.get("/api/v1/namespaces/default").await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let cluster = Cluster::start().await;
    let mut object = config_map("large", json!({}));
    object["data"] = json!({"k": "x".repeat(3 << 20)});
    let body = object.to_string().into_bytes();
    let answer = cluster.send("POST", MAPS, JSON, &body).await;
    assert_eq!(
        answer.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Request entity too large: limit is 3145728", "reason": "RequestEntityTooLarge", "code": 413})
    );
    // In chunks, without a word on its length.
    let mut request = format!(
        "POST {MAPS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for piece in body.chunks(64 << 10) {
        request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(cluster.wire(&request).await.unwrap().code, 413);
    // One byte less than the limit is read.
    let fits = format!("{{\"a\":\"{}\"}}", "x".repeat((3 << 20) - 9));
    let answer = cluster.send("POST", MAPS, JSON, fits.as_bytes()).await;
    assert_eq!(answer.code, 422, "{:?}", answer.json());
    serves(&cluster).await;
}

#[tokio::test]
async fn json_that_nests_without_end_is_refused() {
    let cluster = Cluster::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 20_000, 500_000] {
            let end = if close == "}" { "1" } else { "" };
            let text = format!("{}{end}{}", open.repeat(depth), close.repeat(depth));
            let body = format!(
                "{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"deep\"}},\"data\":{text}}}"
            );
            let answer = cluster.send("POST", MAPS, JSON, body.as_bytes()).await;
            assert!(matches!(answer.code, 400 | 413), "{depth}: {}", answer.code);
            let answer = cluster
                .send(
                    "PATCH",
                    &format!("{MAPS}/kube-root-ca.crt"),
                    "application/merge-patch+json",
                    body.as_bytes(),
                )
                .await;
            assert!(
                (400..500).contains(&answer.code),
                "{depth}: {}",
                answer.code
            );
        }
    }
    // The parser of YAML expands no references without end.
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..12 {
        let refers = vec![format!("*a{}", n - 1); 9].join(",");
        bomb += &format!("a{n}: &a{n} [{refers}]\n");
    }
    let answer = cluster
        .send("POST", MAPS, "application/yaml", bomb.as_bytes())
        .await;
    assert!((400..500).contains(&answer.code), "{}", answer.code);
    serves(&cluster).await;
}

#[tokio::test]
async fn fields_given_twice_are_told_or_refused_as_asked() {
    let cluster = Cluster::start().await;
    let body = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"twice"},"data":{"a":"1","a":"2"}}"#;
    let strict = cluster
        .send(
            "POST",
            &format!("{MAPS}?fieldValidation=Strict"),
            JSON,
            body,
        )
        .await;
    assert_eq!(strict.code, 400, "{:?}", strict.json());
    assert!(text(&strict.json(), "/message").contains("duplicate field \"data.a\""));
    let warned = cluster.send("POST", MAPS, JSON, body).await;
    assert_eq!(warned.code, 201);
    assert!(
        warned
            .header("warning")
            .unwrap()
            .contains("duplicate field")
    );
    assert_eq!(warned.json()["data"], json!({"a": "2"}));
}

#[tokio::test]
async fn what_is_no_object_is_refused() {
    let cluster = Cluster::start().await;
    for (content_type, body, code) in [
        (JSON, b"".as_slice(), 400),
        (JSON, b"{not json", 400),
        (JSON, b"[]", 400),
        // Nothing, to Go: an object without a name.
        (JSON, b"null", 422),
        (JSON, b"\"text\"", 400),
        // Go replaces what is no UTF-8, and then it is no name.
        (JSON, b"{\"metadata\":{\"name\":\"a\xff\xfe\"}}", 422),
        (JSON, b"\xef\xbb\xbf{}", 400),
        (JSON, b"\x1f\x8b\x08\x00", 400),
        (JSON, b"{\"metadata\":{\"name\":1e999}}", 400),
        (JSON, b"{\"metadata\":\"none\"}", 400),
        ("text/csv", b"a,b", 415),
        ("application/json-patch+json", b"[]", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/yaml", b"\t{", 400),
        ("application/yaml", b"&a *a", 400),
        (
            "application/vnd.kubernetes.protobuf",
            b"k8s\0\xff\xff\xff",
            400,
        ),
        ("application/vnd.kubernetes.protobuf", b"junk", 400),
    ] {
        let answer = cluster.send("POST", MAPS, content_type, body).await;
        let shown = String::from_utf8_lossy(body).into_owned();
        assert_eq!(
            answer.code,
            code,
            "{content_type} {shown:?}: {:?}",
            answer.json()
        );
        assert_eq!(text(&answer.json(), "/kind"), "Status", "{shown:?}");
    }
    serves(&cluster).await;
}

#[tokio::test]
async fn a_compressed_body_is_not_unpacked() {
    let cluster = Cluster::start().await;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &vec![b' '; 64 << 20]).unwrap();
    let packed = packed.finish().unwrap();
    let mut request = format!(
        "POST {MAPS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {JSON}\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    )
    .into_bytes();
    request.extend_from_slice(&packed);
    assert_eq!(cluster.wire(&request).await.unwrap().code, 400);
    serves(&cluster).await;
}

#[tokio::test]
async fn heads_and_addresses_that_are_too_long_are_refused() {
    let cluster = Cluster::start().await;
    let long = "x".repeat(2 << 20);
    for request in [
        format!("GET {MAPS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Long: {long}\r\n\r\n"),
        format!("GET {MAPS}?labelSelector={long} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!(
            "GET {MAPS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n",
            "X-Many: y\r\n".repeat(5000)
        ),
    ] {
        if let Some(answer) = cluster.wire(request.as_bytes()).await {
            assert!(matches!(answer.code, 400 | 414 | 431), "{}", answer.code);
        }
    }
    // What is long but fits is no mistake: a selector of 40 KiB.
    let names: Vec<String> = (0..5000).map(|n| format!("name{n}")).collect();
    let selector = format!("name%20in%20({})", names.join(","));
    let answer = cluster
        .ask(&format!("{MAPS}?labelSelector={selector}"), "")
        .await;
    assert_eq!(
        (answer.code, answer.json()["items"].as_array().map(Vec::len)),
        (200, Some(0))
    );
    let (code, _) = cluster
        .get(&format!("{MAPS}?labelSelector={selector}"))
        .await;
    assert_eq!(code, 200, "over HTTP/2, too");
    serves(&cluster).await;
}

#[tokio::test]
async fn absurd_queries_are_refused_or_mean_nothing() {
    let cluster = Cluster::start().await;
    for (query, code) in [
        ("limit=9223372036854775807", 200),
        ("limit=-9223372036854775808", 200),
        ("limit=1e3", 400),
        ("timeoutSeconds=9223372036854775807", 200),
        ("labelSelector=%00", 400),
        ("labelSelector=((((((((", 400),
        ("labelSelector=a%20in%20()%20in%20(b", 400),
        ("labelSelector=%FF%FE", 400),
        ("labelSelector=!!a", 400),
        ("fieldSelector=%3D%3D%3D", 400),
        ("fieldSelector=metadata.name%3D%5C", 400),
        ("resourceVersion=99999999999999999999999", 500),
        ("%3D%26%25&&&=&a=b=c", 200),
        ("watch=false&watch=true", 200),
    ] {
        let answer = cluster.ask(&format!("{MAPS}?{query}"), "").await;
        assert_eq!(answer.code, code, "{query}: {:?}", answer.json());
    }
    let mut forever = cluster
        .watch(
            &format!("{MAPS}?watch=1&timeoutSeconds=9223372036854775807"),
            &[],
        )
        .await;
    assert_eq!(forever.next_name().await.0, "ADDED");
    let mut over = cluster
        .watch(
            &format!("{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=-1"),
            &[],
        )
        .await;
    while over.next().await.is_some() {}
    serves(&cluster).await;
}

/// A request that a proxy in front might understand in another way must not be understood as two.
#[tokio::test]
async fn a_request_is_one_request_whatever_it_says_of_its_length() {
    let cluster = Cluster::start().await;
    let smuggled = format!("DELETE {MAPS}/victim HTTP/1.1\r\nHost: a\r\n\r\n");
    let length = smuggled.len();
    cluster.post(MAPS, &config_map("victim", json!({}))).await;
    for head in [
        // Both, and the chunks end at once.
        format!(
            "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            length + 5
        ),
        format!(
            "Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n0\r\n\r\n",
            length + 5
        ),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n"),
        format!("Content-Length: {length}, 0\r\n\r\n"),
        "Content-Length: +0\r\n\r\n".to_owned(),
        "Content-Length: -1\r\n\r\n".to_owned(),
        "Content-Length: 0x0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n\r\n".to_owned(),
    ] {
        let request =
            format!("POST {MAPS} HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\n{head}{smuggled}");
        let mut stream = cluster.connect().await;
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answers = String::new();
        let read = async {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut piece).await {
                answers += &String::from_utf8_lossy(&piece[..n]);
            }
        };
        tokio::time::timeout(harness::PATIENCE, read).await.unwrap();
        let oks = answers.matches("HTTP/1.1 200").count();
        assert_eq!(oks, 0, "{head:?}: {answers}");
        let (code, _) = cluster.get(&format!("{MAPS}/victim")).await;
        assert_eq!(code, 200, "{head:?} did not end where it should");
    }
    for line in [
        "GET http://other/api HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /api\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /api HTTP/9.9\r\nHost: a\r\n\r\n",
        "G\x7fT /api HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /api/v1/namespaces/../../../etc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /api/v1/namespaces/%2e%2e/pods HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n\r\n\r\n\0\0\0\0",
    ] {
        let mut stream = cluster.connect().await;
        let _ = stream.write_all(line.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(harness::PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
    }
    serves(&cluster).await;
}

#[tokio::test]
async fn clients_that_dawdle_keep_nobody_waiting() {
    let cluster = Cluster::start().await;
    let mut dawdlers = Vec::new();
    for n in 0..200 {
        // Without a handshake, in the middle of a head, in the middle of a body.
        match n % 4 {
            0 => dawdlers.push(Dawdler::Bare(
                TcpStream::connect(cluster.address).await.unwrap(),
            )),
            1 => {
                let mut stream = cluster.connect().await;
                stream
                    .write_all(b"GET /api HTTP/1.1\r\nHost")
                    .await
                    .unwrap();
                dawdlers.push(Dawdler::Greeted(Box::new(stream)));
            }
            2 => {
                let mut stream = cluster.connect().await;
                let head = format!(
                    "POST {MAPS} HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\nContent-Length: 1000000\r\n\r\n{{"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                dawdlers.push(Dawdler::Greeted(Box::new(stream)));
            }
            // Asks for much and reads nothing.
            _ => {
                let mut stream = cluster.connect().await;
                for _ in 0..50 {
                    let ask = format!("GET {MAPS}?pretty=true HTTP/1.1\r\nHost: a\r\n\r\n");
                    stream.write_all(ask.as_bytes()).await.unwrap();
                }
                dawdlers.push(Dawdler::Greeted(Box::new(stream)));
            }
        }
    }
    for n in 0..50 {
        let (code, _) = cluster
            .post(MAPS, &config_map(&format!("m{n}"), json!({})))
            .await;
        assert_eq!(code, 201);
    }
    serves(&cluster).await;
    drop(dawdlers);
}

/// A client that is slow.
#[allow(dead_code)]
enum Dawdler {
    Bare(TcpStream),
    Greeted(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// The server does not wait for ever: `request-timeout` of Kubernetes, as a client may shorten it.
#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_a_timeout() {
    let cluster = Cluster::start().await;
    let request = format!(
        "POST {MAPS}?timeout=1s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {JSON}\r\nContent-Length: 100\r\n\r\n{{"
    );
    let mut stream = cluster.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(harness::PATIENCE, stream.read(&mut answer)).await;
    let answer = harness::wire::parse(&answer[..read.unwrap().unwrap()]).unwrap();
    assert_eq!(answer.code, 504);
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        told.contains("Timeout: request did not complete within the allotted timeout"),
        "{told}"
    );
}

#[tokio::test]
async fn thousands_of_idle_watches_cost_others_nothing() {
    let cluster = Cluster::start().await;
    let version = text(&cluster.get(MAPS).await.1, "/metadata/resourceVersion");
    let mut watches = Vec::new();
    // As many as one connection may carry are on it; the rest needs more connections.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(cluster.client_as(&cluster.pki.admin).await);
    }
    for n in 0..3000 {
        let request = http::Request::get(format!(
            "{MAPS}?watch=1&resourceVersion={version}&labelSelector=for%3Dw{n}"
        ))
        .body(Vec::new())
        .unwrap();
        let stream = clients[n % clients.len()]
            .request_stream(request)
            .await
            .unwrap();
        watches.push(Box::pin(futures::AsyncBufReadExt::lines(stream)));
    }
    let (code, _) = cluster
        .post(MAPS, &config_map("a", json!({"for": "w2999"})))
        .await;
    assert_eq!(code, 201);
    let line = tokio::time::timeout(
        harness::PATIENCE,
        futures::StreamExt::next(watches.last_mut().unwrap()),
    )
    .await
    .unwrap()
    .unwrap()
    .unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(text(&event, "/object/metadata/name"), "a");
    serves(&cluster).await;
    drop(watches);
    drop(clients);
    tokio::time::timeout(Duration::from_secs(30), serves(&cluster))
        .await
        .unwrap();
}
