//! In which order the elements of a merged list stand: those of the patch in the patch's order, those that only the
//! server has in the server's order, and between the two the server's order where it knows both.
//!
//! Source: `normalizeElementOrder` in `k8s.io/apimachinery/pkg/util/strategicpatch`.

use serde_json::Value;

/// What tells elements apart: the value of the merge key, or the whole value in lists without one.
pub(super) fn identity<'a>(element: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        Some(key) => element.get(key),
        None => Some(element),
    }
}

fn index(list: &[Value], element: &Value, key: Option<&str>) -> Option<usize> {
    let wanted = identity(element, key)?;
    list.iter().position(|e| identity(e, key) == Some(wanted))
}

/// Puts `merged` in order. `wanted` is the order of the patch, `server` the list as it was.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (mut patched, mut kept): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|e| index(wanted, e, key).is_some());
    patched.sort_by_key(|e| index(wanted, e, key));
    kept.sort_by_key(|e| index(server, e, key).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(patched.len() + kept.len());
    let (mut patched, mut kept) = (patched.into_iter().peekable(), kept.into_iter().peekable());
    loop {
        let kept_is_next = match (kept.peek(), patched.peek()) {
            (None, None) => return arranged,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => {
                match (index(server, left, key), index(server, right, key)) {
                    (Some(left), Some(right)) => left < right,
                    _ => false,
                }
            }
        };
        arranged.extend(if kept_is_next {
            kept.next()
        } else {
            patched.next()
        });
    }
}
