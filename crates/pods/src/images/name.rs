//! Names of images, as Docker writes them: `nginx` is `docker.io/library/nginx:latest`.

use oci_client::Reference;

use super::ImageError;

/// Parses a name that a person or a Pod gave.
pub(super) fn parse(name: &str) -> Result<Reference, ImageError> {
    let invalid = |problem| ImageError::InvalidName {
        name: name.to_owned(),
        problem,
    };
    if name.is_empty() {
        return Err(invalid("it is empty"));
    }
    if is_id(name) {
        return Err(invalid("it is an id; a name is needed here"));
    }
    let reference: Reference = name.parse().map_err(|error: oci_client::ParseError| {
        invalid(match error {
            oci_client::ParseError::NameContainsUppercase => UPPER_CASE,
            oci_client::ParseError::NameTooLong => "it is longer than 255 characters",
            oci_client::ParseError::DigestInvalidLength
            | oci_client::ParseError::DigestInvalidFormat
            | oci_client::ParseError::DigestUnsupported => "its digest is malformed",
            _ => "expected [registry/]repository[:tag][@digest]",
        })
    })?;
    // The parser takes a first part in upper case for a host, and then does not.
    if reference
        .repository()
        .bytes()
        .any(|byte| byte.is_ascii_uppercase())
    {
        return Err(invalid(UPPER_CASE));
    }
    Ok(reference)
}

const UPPER_CASE: &str = "repository names are lower case";

/// The full form, which the store uses for keys.
pub(super) fn normalise(name: &str) -> Result<String, ImageError> {
    Ok(parse(name)?.whole())
}

/// Whether a text is an image's id rather than its name.
pub(super) fn is_id(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex_sha256)
}

/// Whether a text can be the hexadecimal form of a SHA-256, and so a safe file name.
pub(super) fn is_hex_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        for (given, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            (
                "jonbaier/node-express-info:latest",
                "docker.io/jonbaier/node-express-info:latest",
            ),
            ("seaway/whoami", "docker.io/seaway/whoami:latest"),
            (
                "index.docker.io/library/nginx",
                "docker.io/library/nginx:latest",
            ),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ] {
            assert_eq!(normalise(given).unwrap(), full, "{given}");
        }
        let digest = format!("nginx@sha256:{}", "0".repeat(64));
        assert_eq!(
            normalise(&digest).unwrap(),
            format!("docker.io/library/{digest}")
        );
    }

    #[test]
    fn what_is_no_name_is_said_so() {
        let id = format!("sha256:{}", "a".repeat(64));
        let long = "a".repeat(300);
        for name in [
            "",
            "UPPER/case",
            "a b",
            "a:b:c",
            "-",
            "x@sha256:12",
            "a//b",
            &id,
            &long,
        ] {
            let error = normalise(name).unwrap_err();
            assert_eq!(error.reason(), "InvalidImageName", "{name}: {error}");
        }
    }
}
