//! The store as a whole: archives made here go in, and what `list`, `resolve` and the directory then show.

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::*;

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(diff_ids: &[String]) -> Vec<u8> {
    json!({
        "architecture": config::architecture(), "os": "linux",
        "config": { "Cmd": ["/hello"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into_bytes()
}

/// `docker save` of an image with these layers.
fn docker_archive(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config(&layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>());
    let paths: Vec<String> = (0..layers.len())
        .map(|n| format!("{n}/layer.tar"))
        .collect();
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [name], "Layers": paths }]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![
        ("manifest.json", manifest.as_bytes()),
        ("config.json", &config),
    ];
    files.extend(
        paths
            .iter()
            .map(String::as_str)
            .zip(layers.iter().map(Vec::as_slice)),
    );
    tar(&files)
}

/// An OCI layout whose index points to an index for several machines.
fn oci_layout(dir: &Path, annotations: serde_json::Value, layer: &[u8]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = digest(bytes);
        fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
        digest
    };
    let config = put(&config(&[digest(layer)]));
    let layer = put(&gzip(layer));
    let manifest = put(
        json!({ "config": { "digest": config }, "layers": [{ "digest": layer }] })
            .to_string()
            .as_bytes(),
    );
    let platform = json!({ "os": "linux", "architecture": config::architecture() });
    let foreign = json!({ "os": "linux", "architecture": "s390x" });
    let index = put(json!({ "manifests": [
            { "digest": format!("sha256:{}", "0".repeat(64)), "platform": foreign },
            { "digest": manifest, "platform": platform },
        ] })
    .to_string()
    .as_bytes());
    let top = json!({ "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": index, "annotations": annotations,
    }] });
    fs::write(dir.join("index.json"), top.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

struct Place {
    dir: tempfile::TempDir,
    images: Images,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(&dir.path().join("images")).unwrap();
        Self { dir, images }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("archive");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        self.images
            .list()
            .unwrap()
            .into_iter()
            .flat_map(|entry| entry.names)
            .collect()
    }

    /// What is in a directory of the store.
    fn count(&self, below: &str) -> usize {
        fs::read_dir(self.dir.path().join("images").join(below))
            .unwrap()
            .count()
    }
}

const BUILT_IN: [&str; 2] = [
    "docker.io/seaway/host:latest",
    "docker.io/seaway/whoami:latest",
];

#[test]
fn built_in_images_are_there_and_stay() {
    let place = Place::new();
    assert_eq!(place.names(), BUILT_IN);
    let whoami = place.images.resolve("seaway/whoami").unwrap().unwrap();
    assert_eq!(whoami.built_in, Some(BuiltIn::Whoami));
    assert_eq!(place.images.resolve(&whoami.id).unwrap().unwrap(), whoami);
    assert!(matches!(
        place.images.remove("seaway/host"),
        Err(ImageError::BuiltIn { .. })
    ));
    let taken = place.images.tag("seaway/host", "seaway/whoami");
    assert!(matches!(taken, Err(ImageError::BuiltIn { .. })));
}

#[test]
fn a_tag_is_another_name_for_the_same_image() {
    let place = Place::new();
    place
        .images
        .tag("seaway/whoami", "jonbaier/node-express-info:latest")
        .unwrap();
    let tagged = place
        .images
        .resolve("docker.io/jonbaier/node-express-info")
        .unwrap()
        .unwrap();
    assert_eq!(tagged.built_in, Some(BuiltIn::Whoami));
    // Another process sees it as well.
    let other = Images::open(&place.dir.path().join("images")).unwrap();
    assert!(
        other
            .resolve("jonbaier/node-express-info")
            .unwrap()
            .is_some()
    );
    other.remove("jonbaier/node-express-info").unwrap();
    assert_eq!(place.names(), BUILT_IN);
    let again = place.images.remove("jonbaier/node-express-info");
    assert!(matches!(again, Err(ImageError::NotFound { .. })));
    let nothing = place.images.tag("absent", "x");
    assert!(matches!(nothing, Err(ImageError::NotFound { .. })));
}

#[test]
fn a_docker_archive_is_taken_in_under_its_names_and_leaves_no_trace_when_removed() {
    let place = Place::new();
    let layers = [
        tar(&[("hello", b"one"), ("a", b"1")]),
        tar(&[("hello", b"two")]),
    ];
    let archive = docker_archive("example/app:1", &layers);
    for bytes in [
        archive.clone(),
        gzip(&archive),
        zstd::encode_all(&*archive, 1).unwrap(),
    ] {
        let entries = place.images.import(&place.file(&bytes), None).unwrap();
        assert_eq!(entries[0].names, ["docker.io/example/app:1"]);
    }
    let info = place.images.resolve("example/app:1").unwrap().unwrap();
    assert_eq!(
        (info.size, info.config.cmd.as_slice()),
        (7, &["/hello".to_owned()][..])
    );
    let Rootfs::Layers(dirs) = &info.rootfs else {
        panic!("{info:?}")
    };
    assert_eq!(fs::read_to_string(dirs[1].join("hello")).unwrap(), "two");
    assert_eq!((place.count("layers"), place.count("blobs/sha256")), (4, 1));

    place.images.tag("example/app:1", "other").unwrap();
    place.images.remove("example/app:1").unwrap();
    assert!(place.images.resolve(&info.id).unwrap().is_some());
    place.images.remove(&info.id).unwrap();
    assert_eq!(place.names(), BUILT_IN);
    assert_eq!(
        (
            place.count("layers"),
            place.count("blobs/sha256"),
            place.count("tmp")
        ),
        (0, 0, 0)
    );
}

#[test]
fn an_oci_layout_is_taken_in_from_a_directory_and_from_a_tar() {
    let place = Place::new();
    let dir = tempfile::tempdir().unwrap();
    let name = json!({ "org.opencontainers.image.ref.name": "registry.example/app:2" });
    oci_layout(dir.path(), name, &tar(&[("hello", b"oci")]));
    place.images.import(dir.path(), None).unwrap();
    let mut builder = Builder::new(Vec::new());
    builder.append_dir_all(".", dir.path()).unwrap();
    let file = place.file(&builder.into_inner().unwrap());
    place.images.import(&file, Some("mine")).unwrap();
    let first = place
        .images
        .resolve("registry.example/app:2")
        .unwrap()
        .unwrap();
    let second = place.images.resolve("mine").unwrap().unwrap();
    assert_eq!(first, second);
    let Rootfs::Layers(dirs) = &first.rootfs else {
        panic!("{first:?}")
    };
    assert_eq!(fs::read_to_string(dirs[0].join("hello")).unwrap(), "oci");
}

#[test]
fn a_nameless_image_needs_a_name() {
    let place = Place::new();
    let dir = tempfile::tempdir().unwrap();
    // A tag alone, as skopeo writes it, is not a name.
    let annotations = json!({ "org.opencontainers.image.ref.name": "latest" });
    oci_layout(dir.path(), annotations, &tar(&[("hello", b"oci")]));
    let error = place
        .images
        .import(dir.path(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("give one"), "{error}");
    place.images.import(dir.path(), Some("named")).unwrap();
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let place = Place::new();
    let dir = tempfile::tempdir().unwrap();
    oci_layout(dir.path(), json!({}), &tar(&[("hello", b"honest")]));
    for entry in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let honest = fs::read(&path).unwrap();
        let evil = if honest.starts_with(&[0x1f, 0x8b]) {
            gzip(&tar(&[("hello", b"evil!!")]))
        } else {
            [&honest[..], b" "].concat()
        };
        fs::write(&path, evil).unwrap();
        assert!(
            place.images.import(dir.path(), Some("x")).is_err(),
            "{}",
            path.display()
        );
        fs::write(&path, honest).unwrap();
    }
    place.images.import(dir.path(), Some("x")).unwrap();
    assert_eq!(place.count("tmp"), 0);
}

#[test]
fn archives_that_point_outside_are_refused() {
    let place = Place::new();
    let secret = place.dir.path().join("secret");
    fs::write(&secret, tar(&[("x", b"secret")])).unwrap();
    for layer in ["/etc/passwd", "../../secret", secret.to_str().unwrap()] {
        let config = config(&[digest(&fs::read(&secret).unwrap())]);
        let manifest = json!([{ "Config": "c", "RepoTags": ["x"], "Layers": [layer] }]).to_string();
        let bytes = tar(&[("manifest.json", manifest.as_bytes()), ("c", &config)]);
        assert!(
            place.images.import(&place.file(&bytes), None).is_err(),
            "{layer}"
        );
    }
    let error = place
        .images
        .import(&place.file(b"not an archive"), None)
        .unwrap_err();
    assert!(matches!(error, ImageError::Format { .. }), "{error}");
    assert_eq!((place.count("layers"), place.count("tmp")), (0, 0));
}

#[test]
fn a_layer_in_use_outlives_its_image() {
    let place = Place::new();
    let archive = docker_archive("app", &[tar(&[("hello", b"x")])]);
    let entries = place.images.import(&place.file(&archive), None).unwrap();
    let Rootfs::Layers(dirs) = &entries[0].info.rootfs else {
        panic!()
    };
    let hold = hold_layer(&dirs[0]).unwrap();
    place.images.remove("app").unwrap();
    assert!(dirs[0].join("hello").exists());
    drop(hold);
    // The next change of the store finds it free.
    place.images.tag("seaway/host", "h").unwrap();
    assert!(!dirs[0].exists());
}

#[tokio::test]
async fn a_policy_decides_whether_a_registry_is_asked() {
    let place = Place::new();
    place
        .images
        .tag("seaway/whoami", "given/here:latest")
        .unwrap();
    for policy in [
        PullPolicy::Always,
        PullPolicy::IfNotPresent,
        PullPolicy::Never,
    ] {
        let info = place.images.ensure("given/here", policy).await.unwrap();
        assert_eq!(info.built_in, Some(BuiltIn::Whoami));
    }
    let never = place
        .images
        .ensure("absent", PullPolicy::Never)
        .await
        .unwrap_err();
    assert_eq!(never.reason(), "ErrImageNeverPull");
    let invalid = place
        .images
        .ensure("UPPER CASE", PullPolicy::Always)
        .await
        .unwrap_err();
    assert_eq!(invalid.reason(), "InvalidImageName");
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named_with_the_reason() {
    let place = Place::new();
    // A port of this machine that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let name = format!("127.0.0.1:{port}/app:1");
    let error = place
        .images
        .ensure(&name, PullPolicy::IfNotPresent)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "ErrImagePull");
    let text = error.to_string();
    assert!(
        text.contains("not reachable") && text.contains("refused"),
        "{text}"
    );
}

/// A registry with one image, and what it answers to what it is not asked for is 404.
async fn registry(routes: Vec<(String, &'static str, Vec<u8>)>) -> u16 {
    let routes = Arc::new(routes);
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let routes = routes.clone();
        async move {
            let path = request.uri().path();
            match routes.iter().find(|(route, _, _)| route == path) {
                Some((_, kind, body)) => (
                    http::StatusCode::OK,
                    [
                        ("content-type", *kind),
                        ("docker-content-digest", &*digest(body)),
                    ],
                    body.clone(),
                )
                    .into_response(),
                None => http::StatusCode::NOT_FOUND.into_response(),
            }
        }
    });
    use axum::response::IntoResponse;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

#[tokio::test]
async fn an_image_is_pulled_from_a_registry_and_asked_for_again_only_when_told() {
    let place = Place::new();
    let layer = tar(&[("hello", b"pulled")]);
    let packed = gzip(&layer);
    let config = config(&[digest(&layer)]);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": digest(&config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                     "digest": digest(&packed), "size": packed.len() }],
    })
    .to_string()
    .into_bytes();
    let octets = "application/octet-stream";
    let port = registry(vec![
        ("/v2/".into(), "application/json", b"{}".to_vec()),
        (
            "/v2/app/manifests/1".into(),
            "application/vnd.oci.image.manifest.v1+json",
            manifest,
        ),
        (format!("/v2/app/blobs/{}", digest(&config)), octets, config),
        (format!("/v2/app/blobs/{}", digest(&packed)), octets, packed),
    ])
    .await;
    let name = format!("127.0.0.1:{port}/app:1");
    let info = place
        .images
        .ensure(&name, PullPolicy::IfNotPresent)
        .await
        .unwrap();
    let Rootfs::Layers(dirs) = &info.rootfs else {
        panic!("{info:?}")
    };
    assert_eq!(fs::read_to_string(dirs[0].join("hello")).unwrap(), "pulled");
    assert_eq!(
        place.images.ensure(&name, PullPolicy::Never).await.unwrap(),
        info
    );
    assert_eq!(
        place
            .images
            .ensure(&name, PullPolicy::Always)
            .await
            .unwrap(),
        info
    );

    let absent = format!("127.0.0.1:{port}/app:2");
    let error = place
        .images
        .ensure(&absent, PullPolicy::Always)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "ErrImagePull");
}
