//! The `pod-template-hash`: a short name for a template, the same for the same template for ever.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Letters and digits that cannot form words or be mistaken for each other. Source: `rand.SafeEncodeString` of
/// `k8s.io/apimachinery`.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Ten characters that may stand in a label and a name. `collisions` tells templates apart whose hashes are equal.
pub(crate) fn of(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // The maps of a template are sorted and its fields have a fixed order, so its JSON is canonical.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let mut hash = fnv1a(0xcbf2_9ce4_8422_2325, &json);
    if let Some(collisions) = collisions {
        hash = fnv1a(hash, &collisions.to_le_bytes());
    }
    let mut text = String::with_capacity(10);
    for _ in 0..10 {
        let digit = usize::try_from(hash % 27).unwrap_or(0);
        text.push(char::from(ALPHABET[digit]));
        hash /= 27;
    }
    text
}

/// Source: FNV-1a, 64 bits, <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn fnv1a(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(serde_json::json!({
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "web", "image": image }] },
        }))
        .unwrap()
    }

    #[test]
    fn the_hash_depends_on_the_template_and_on_collisions_only() {
        assert_eq!(of(&template("a"), None), of(&template("a"), None));
        assert_ne!(of(&template("a"), None), of(&template("b"), None));
        assert_ne!(of(&template("a"), None), of(&template("a"), Some(1)));
        assert_ne!(of(&template("a"), Some(1)), of(&template("a"), Some(2)));
    }

    #[test]
    fn the_hash_never_changes_between_versions() {
        // Another value would make every Deployment roll out anew when the program is updated.
        insta::assert_snapshot!(of(&template("a"), None));
    }

    #[test]
    fn the_function_is_the_published_one() {
        assert_eq!(fnv1a(0xcbf2_9ce4_8422_2325, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(
            fnv1a(0xcbf2_9ce4_8422_2325, b"foobar"),
            0x8594_4171_f739_67e8
        );
    }
}
