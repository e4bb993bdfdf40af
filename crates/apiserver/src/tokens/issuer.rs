//! The key: signing, checking signatures, and what others need to check them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Claims;
use crate::status::ApiError;

/// Who issues tokens, and whom tokens are meant for that name nobody: the API server, by its name in the cluster.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const ALGORITHM: &str = "ES256";
/// What comes before the two coordinates of a P-256 key in its `SubjectPublicKeyInfo` (RFC 5480).
const KEY_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Signs tokens and knows its own.
pub(crate) struct Issuer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    /// Name of the key: the hash of what others check it with.
    key_id: String,
}

impl Issuer {
    /// With a key in PKCS #8, PEM.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub(crate) fn new(pem: &str) -> Result<Self, String> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            key.secret_pkcs8_der(),
            &random,
        )
        .map_err(|e| e.to_string())?;
        let info = [&KEY_INFO, pair.public_key().as_ref()].concat();
        Ok(Self {
            key_id: URL_SAFE_NO_PAD.encode(Sha256::digest(info)),
            pair,
            random,
        })
    }

    /// The token that says this.
    pub(super) fn sign(&self, claims: &Claims) -> Result<String, ApiError> {
        let header = json!({"alg": ALGORITHM, "kid": self.key_id});
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let claims = serde_json::to_vec(claims).map_err(ApiError::internal)?;
        let signed = format!("{}.{}", part(header.to_string().as_bytes()), part(&claims));
        let signature = self
            .pair
            .sign(&self.random, signed.as_bytes())
            .map_err(|_| ApiError::internal("a token could not be signed"))?;
        Ok(format!("{signed}.{}", part(signature.as_ref())))
    }

    /// What a token says, if this issuer signed it; whether it is still good is another question.
    pub(super) fn read(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        // The algorithm is never the token's choice.
        if header["alg"] != ALGORITHM || header["kid"].as_str().is_some_and(|id| id != self.key_id)
        {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        key.verify(signed.as_bytes(), &decode(signature)?).ok()?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?).ok()?;
        (claims.iss == ISSUER).then_some(claims)
    }

    /// `/openid/v1/jwks`: the key by which others check signatures. Source: RFC 7517, RFC 7518 section 6.2.
    pub(crate) fn keys(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        // A byte that says that both coordinates follow, then they, of 32 bytes each.
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
        json!({"keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": ALGORITHM,
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

/// `/.well-known/openid-configuration`, for a server that is reached at `address`. Source: OpenID Connect Discovery 1.0.
pub(crate) fn configuration(address: &str) -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Audiences, Binding, Reference};
    use super::*;

    fn issuer() -> Issuer {
        Issuer::new(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            aud: Audiences::Several(vec![ISSUER.to_owned()]),
            exp: 2,
            iat: 1,
            iss: ISSUER.to_owned(),
            jti: "j".to_owned(),
            kubernetes: Binding {
                namespace: "d".to_owned(),
                node: None,
                pod: None,
                secret: None,
                serviceaccount: Reference {
                    name: "a".to_owned(),
                    uid: "u".to_owned(),
                },
            },
            nbf: 1,
            sub: "system:serviceaccount:d:a".to_owned(),
        }
    }

    #[test]
    fn a_token_is_read_by_its_issuer_only_and_as_it_was_signed() {
        let issuer = issuer();
        let token = issuer.sign(&claims()).unwrap();
        assert_eq!(issuer.read(&token), Some(claims()));
        assert_eq!(self::issuer().read(&token), None);
        let parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        let other = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&json!({"iss": ISSUER})).unwrap());
        for forged in [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{other}.{}", parts[0], parts[2]),
            "a.b".to_owned(),
            String::new(),
        ] {
            assert_eq!(issuer.read(&forged), None, "{forged}");
        }
    }

    #[test]
    fn the_key_can_be_had_by_everybody() {
        let keys = issuer().keys();
        for field in ["x", "y"] {
            let text = keys["keys"][0][field].as_str().unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(text).unwrap().len(), 32);
        }
        assert_eq!(
            configuration("a:1")["jwks_uri"],
            "https://a:1/openid/v1/jwks"
        );
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(token in "[a-zA-Z0-9._-]{0,80}") {
            proptest::prop_assert_eq!(issuer().read(&token), None);
        }
    }
}
