//! HTTP/1.1 responses: what an answer consists of, and its head as bytes (RFC 9110 §15,
//! RFC 9112 §4).

use std::borrow::Cow;

use bytes::Bytes;

use crate::json;

/// An answer with a content that is at hand.
///
/// ```
/// use pousse::Response;
/// let answer = Response::text(200, "ok\n").with("Cache-Control", "no-store");
/// ```
#[derive(Clone, Debug)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, Cow<'static, str>)>,
    pub(crate) content: Bytes,
}

impl Response {
    /// A response of this status without fields or content.
    pub fn new(status: u16) -> Self {
        Self { status, fields: Vec::new(), content: Bytes::new() }
    }

    /// Plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status)
            .with("Content-Type", "text/plain; charset=utf-8")
            .with_content(text.into().into_bytes())
    }

    /// JSON that is written already.
    pub fn json(status: u16, json: impl Into<Bytes>) -> Self {
        Self::new(status).with("Content-Type", "application/json").with_content(json)
    }

    /// A problem in the form of RFC 9457. `detail` should say what to change.
    pub fn problem(status: u16, detail: &str) -> Self {
        let mut json = Vec::new();
        put_problem(&mut json, status, detail);
        json.push(b'\n');
        Self::new(status)
            .with("Content-Type", "application/problem+json")
            .with("Cache-Control", "no-store")
            .with_content(json)
    }

    /// Adds a field. Control characters in the value are left out: they could end the field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let mut value = value.into();
        // Nearly all values are plain, which a look at their bytes tells.
        if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            value = value.chars().filter(|char| !char.is_control()).collect::<String>().into();
        }
        self.fields.push((name, value));
        self
    }

    /// Sets the content.
    #[must_use]
    pub fn with_content(mut self, content: impl Into<Bytes>) -> Self {
        self.content = content.into();
        self
    }
}

/// Appends a problem (RFC 9457) as JSON.
pub(crate) fn put_problem(out: &mut Vec<u8>, status: u16, detail: &str) {
    out.extend_from_slice(b"{\"type\":\"about:blank\",\"title\":");
    json::push_string(out, reason_phrase(status));
    out.extend_from_slice(format!(",\"status\":{status},\"detail\":").as_bytes());
    json::push_string(out, detail);
    out.push(b'}');
}

/// Appends a status line and the fields that every response has.
pub(crate) fn put_status(out: &mut Vec<u8>, status: u16, date: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    put_number(out, status.into());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
}

/// Appends `name: value`.
pub(crate) fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a decimal number.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' | u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        at -= 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// What a status is called (RFC 9110 §15; 431 and 429: RFC 6585).
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        // RFC 9112 §4: the phrase may be empty; clients ignore it.
        _ => "",
    }
}

/// The length of a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) const DATE_BYTES: usize = 29;

/// Unix seconds as the date of RFC 9110 §5.6.7.
pub(crate) fn date(unix_s: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let name = |names: &[&'static str], at: u64| {
        usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or_default()
    };
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, days % 7),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Unix seconds as RFC 3339 has them: `1994-11-06T08:49:37Z`.
pub(crate) fn rfc3339(unix_s: u64) -> String {
    let (year, month, day) = civil(unix_s / 86_400);
    // March is 0.
    let month = (month + 2) % 12 + 1;
    let (hour, minute, second) = (unix_s / 3600 % 24, unix_s / 60 % 60, unix_s % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970 as year, month (March is 0) and day.
///
/// Days are counted in years that begin in March, so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01; 146,097 are the 400 years of an era.
    let (era, day_of_era) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    (400 * era + year_of_era + u64::from(month >= 10), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_another_implementation() {
        for unix_s in (0..=4_200_000_000).step_by(5_000_011).chain([951_782_400, 4_107_542_400]) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_s);
            assert_eq!(date(unix_s), httpdate::fmt_http_date(time), "{unix_s}");
        }
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0).len(), DATE_BYTES);
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (784_111_777, "1994-11-06T08:49:37Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(unix_s), text);
        }
    }

    #[test]
    fn a_problem_is_json_and_a_field_cannot_be_broken_out_of() {
        let response = Response::problem(404, "no \"such\" thing");
        assert_eq!(
            &response.content[..],
            b"{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,\
              \"detail\":\"no \\\"such\\\" thing\"}\n"
        );
        let response = Response::new(200).with("X", "a\r\nSet-Cookie: b".to_owned());
        assert_eq!(response.fields[0].1, "aSet-Cookie: b");
        let mut number = Vec::new();
        put_number(&mut number, u64::MAX);
        put_number(&mut number, 0);
        assert_eq!(number, b"184467440737095516150");
    }
}
