//! User data: what the kernel keeps for `nft` without reading it. Comments, and the types that `nft list` prints.
//!
//! A list of (type: u8, length: u8, value). Source: libnftnl `include/libnftnl/udata.h`; numbers are in host
//! order there, as `nft` writes them.

/// `NFTNL_UDATA_TABLE_COMMENT`.
pub(super) const TABLE_COMMENT: u8 = 0;
/// `NFTNL_UDATA_CHAIN_COMMENT`.
pub(super) const CHAIN_COMMENT: u8 = 0;
/// `NFTNL_UDATA_RULE_COMMENT`.
pub(super) const RULE_COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_ELEM_COMMENT`.
pub(super) const ELEMENT_COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_COMMENT`.
pub(super) const SET_COMMENT: u8 = 7;

/// The longest comment that `nft -f` accepts (`NFTNL_UDATA_COMMENT_MAXLEN`), in bytes.
pub(super) const LONGEST_COMMENT: usize = 128;

/// Appends one entry. Values over 255 bytes do not fit the format and leave the entry out.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if let Ok(length) = u8::try_from(value.len()) {
        out.extend_from_slice(&[kind, length]);
        out.extend_from_slice(value);
    }
}

/// Appends a number.
pub(super) fn put_u32(out: &mut Vec<u8>, kind: u8, value: u32) {
    put(out, kind, &value.to_ne_bytes());
}

/// Appends an entry of entries.
pub(super) fn nest(out: &mut Vec<u8>, kind: u8, inside: impl FnOnce(&mut Vec<u8>)) {
    let mut nested = Vec::new();
    inside(&mut nested);
    put(out, kind, &nested);
}

/// Appends a comment. It is a label for people: what is beyond the longest that `nft` takes back is cut.
pub(super) fn put_comment(out: &mut Vec<u8>, kind: u8, comment: &str) {
    let comment = cut(comment);
    // At most 129 bytes, so the length fits.
    out.extend_from_slice(&[kind, comment.len() as u8 + 1]);
    out.extend_from_slice(comment.as_bytes());
    out.push(0);
}

/// User data with nothing but a comment.
pub(super) fn comment(kind: u8, comment: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(comment.len() + 3);
    put_comment(&mut out, kind, comment);
    out
}

/// The comment as it is stored: what was given, cut at a character boundary to what `nft` accepts.
pub(super) fn cut(comment: &str) -> &str {
    let mut end = comment.len().min(LONGEST_COMMENT);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    &comment[..end]
}

/// The comment in user data, if there is one.
pub(super) fn read_comment(bytes: &[u8], kind: u8) -> Option<String> {
    let value = entries(bytes).find(|(found, _)| *found == kind)?.1;
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    Some(String::from_utf8_lossy(&value[..end]).into_owned())
}

/// The number of an entry, if there is one.
pub(super) fn read_u32(bytes: &[u8], kind: u8) -> Option<u32> {
    let value = entries(bytes).find(|(found, _)| *found == kind)?.1;
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// The entries; ends at the first that does not fit into the rest.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [kind, length] = *rest.first_chunk()?;
        let value = rest.get(2..2 + usize::from(length))?;
        rest = rest.get(2 + usize::from(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_comment_is_cut_where_a_character_ends() {
        let long = "ä".repeat(100);
        let stored = read_comment(&comment(ELEMENT_COMMENT, &long), ELEMENT_COMMENT).unwrap();
        assert_eq!(stored, "ä".repeat(64));
    }
}
