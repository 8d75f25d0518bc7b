//! Promise: what comes out of a compressed message is what another implementation takes out of it,
//! and never more than the limit: exactly the limit passes, one byte more does not; what is no
//! DEFLATE is told apart. And what we compress comes back whole, shorter than it was, in one frame.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use pousse::seam::{Inflated, deflated, inflated};

use super::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.choice();
    let most = input.one_of(&[0, 1, 100, 1000, 16_383, 16_384, 16_385, 40_000, 100_000]);
    let bytes = input.take(usize::MAX);
    if choice.is_multiple_of(4) {
        return comes_back(bytes, choice.is_multiple_of(8), usize::from(choice) * 20);
    }
    // One more than the limit is enough to know.
    let theirs = puff(bytes, 110_000);
    match (inflated(bytes, most), &theirs) {
        (Inflated::Message(ours), Ok(theirs)) => {
            assert!(ours.len() <= most);
            assert!(&ours == theirs, "{} bytes, and they have {}", ours.len(), theirs.len());
        }
        (Inflated::TooBig, Ok(theirs)) => assert!(theirs.len() > most, "{}", theirs.len()),
        // It was too big before it was wrong, or before they gave up.
        (Inflated::TooBig, Err((so_far, _))) => assert!(*so_far > most, "{so_far}"),
        (Inflated::Bad, Err((_, is_bad))) => assert!(is_bad, "they found nothing wrong"),
        (ours, theirs) => panic!("{ours:?}, and they have {:?}", theirs.as_ref().map(Vec::len)),
    }
    if let Ok(theirs) = theirs {
        let is_message = matches!(inflated(bytes, theirs.len()), Inflated::Message(_));
        assert!(is_message, "exactly the limit passes");
        let is_less =
            theirs.is_empty() || matches!(inflated(bytes, theirs.len() - 1), Inflated::TooBig);
        assert!(is_less, "one byte more does not");
    }
}

/// Compresses the bytes, repeated up to this length.
fn comes_back(bytes: &[u8], is_nine: bool, length: usize) {
    let payload: Vec<u8> = bytes.iter().copied().cycle().take(length.max(bytes.len())).collect();
    let Some(deflated) = deflated(&payload, is_nine) else { return };
    assert!(deflated.len() < payload.len());
    let back = puff(&deflated, payload.len()).expect("what we write can be read");
    assert_eq!(back, payload);
    assert!(matches!(inflated(&deflated, payload.len()), Inflated::Message(it) if it == payload));
}

/// What `miniz_oxide` takes out of a message, with what RFC 7692 §7.2.2 puts behind it, and one
/// more final block, at which a message that is whole ends. Behind a final block it begins anew.
///
/// An error says how much had come out, and whether it is bad or just more than `most`.
pub fn puff(bytes: &[u8], most: usize) -> Result<Vec<u8>, (usize, bool)> {
    let all = [bytes, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    let mut out = vec![0; most + 1];
    let (mut read, mut begun, mut end) = (0, 0, 0);
    loop {
        let mut inflater = DecompressorOxide::new();
        // Not over the rim: a distance to before this stream is a mistake.
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, consumed, written) =
            decompress(&mut inflater, &all[read..], &mut out[begun..], end - begun, flags);
        read += consumed;
        end += written;
        if end > most || status == TINFLStatus::HasMoreOutput {
            return Err((end, false));
        }
        if status != TINFLStatus::Done {
            return Err((end, true));
        }
        if read == bytes.len() || read == all.len() {
            out.truncate(end);
            return Ok(out);
        }
        begun = end;
    }
}
