//! What a peer sent, taken piece by piece: a slice that shrinks from its front.

/// Takes the first `count` bytes, which are there.
pub(crate) fn take<'s>(input: &mut &'s mut [u8], count: usize) -> &'s mut [u8] {
    let whole = std::mem::take(input);
    let (head, rest) = whole.split_at_mut(count.min(whole.len()));
    *input = rest;
    head
}
