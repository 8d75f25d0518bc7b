//! A reader of Prometheus' text format 0.0.4 that lets nothing pass: one HELP and one TYPE for each
//! family, both before its lines, all lines of a family together, no line twice, names and labels
//! by their grammar, label values escaped, histograms whole. It shares no code with the server.

use std::collections::{BTreeMap, BTreeSet};

/// One line: its name, and its labels in their order.
pub(crate) type Series = (String, Vec<(String, String)>);

/// What a text says.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// The types of the families.
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) values: BTreeMap<Series, f64>,
}

impl Exposition {
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let mut read = Self::default();
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        assert!(text.ends_with('\n'), "the last line has an end");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(is_name(name) && !help.trim().is_empty(), "{line}");
                assert!(helped.insert(name.to_owned()), "two HELPs: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(helped.contains(name), "no HELP before {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(read.types.insert(name.into(), kind.into()).is_none(), "twice: {line}");
                name.clone_into(&mut family);
            } else {
                let (series, value) = sample(line).unwrap_or_else(|| panic!("{line:?}"));
                let kind = read.types.get(&family).map(String::as_str);
                let suffix = series.0.strip_prefix(&family).unwrap_or_else(|| panic!("{line}"));
                let suffixes: &[&str] = match kind {
                    Some("histogram") => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line} in {family}");
                assert!(read.values.insert(series, value).is_none(), "twice: {line}");
            }
        }
        assert_eq!(helped, read.types.keys().cloned().collect(), "HELP and TYPE for each");
        read.check_histograms();
        read
    }

    fn check_histograms(&self) {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let bucket = format!("{name}_bucket");
            let mut buckets: Vec<(f64, f64)> = self
                .values
                .iter()
                .filter(|((it, _), _)| *it == bucket)
                .map(|((_, labels), count)| {
                    assert_eq!((labels.len(), labels[0].0.as_str()), (1, "le"), "{name}");
                    let bound = labels[0].1.replace("+Inf", "inf");
                    (bound.parse().unwrap(), *count)
                })
                .collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
            let (last, all) = buckets.last().unwrap();
            assert!(last.is_infinite(), "{name} has no bucket +Inf");
            assert_eq!(*all, self.one(&format!("{name}_count")), "{name}");
            assert!(self.one(&format!("{name}_sum")) >= 0.0);
        }
    }

    /// The value without labels.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> f64 {
        self.with(name, &[])
    }

    /// The value with these labels.
    #[track_caller]
    pub(crate) fn with(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let series = (name.to_owned(), labels.iter().map(own).collect());
        *self.values.get(&series).unwrap_or_else(|| panic!("there is no {series:?}"))
    }

    /// The labels that a family has, without the bounds of a histogram.
    pub(crate) fn labels(&self, family: &str) -> BTreeSet<&str> {
        let lines = self.values.keys().filter(|(name, _)| name == family);
        lines.flat_map(|(_, labels)| labels.iter().map(|(label, _)| label.as_str())).collect()
    }
}

fn is_name(name: &str) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    !name.is_empty() && name.bytes().all(is_byte) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// `NAME{LABEL="VALUE",…} NUMBER`
fn sample(line: &str) -> Option<(Series, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            let is_label = is_name(label) && !label.contains(':') && !label.starts_with("__");
            let is_new = labels.iter().all(|(other, _)| other != label);
            (is_label && is_new).then_some(())?;
            labels.push((label.to_owned(), value));
            rest = match after.strip_prefix(',') {
                Some(more) => more,
                None => break rest = after.strip_prefix('}')?,
            };
        }
    }
    let number = rest.strip_prefix(' ')?;
    let is_plain = !number.is_empty() && number.bytes().all(|it| b"0123456789.e+-".contains(&it));
    (is_name(name) && is_plain).then_some(((name.to_owned(), labels), number.parse().ok()?))
}

/// The text up to a quote that is not escaped, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, text.split_at(at + 1).1)),
            (_, '\\') => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            (_, plain) => value.push(plain),
        }
    }
}

#[test]
fn the_reader_of_the_tests_lets_nothing_pass() {
    let family = |lines: &str| format!("# HELP a Help.\n# TYPE a counter\n{lines}");
    let read = Exposition::read(&family("a{b=\"x\\\"\\\\\\n,}\",c=\"\"} 1e3\na 2\n"));
    assert_eq!(read.with("a", &[("b", "x\"\\\n,}"), ("c", "")]), 1000.0);
    assert_eq!(read.one("a"), 2.0);
    for wrong in [
        "a 1",
        "b 1\n",
        "a 1\na 1\n",
        "a{} 1\n",
        "a{b=x} 1\n",
        "a{b=\"x} 1\n",
        "a{b=\"\\x\"} 1\n",
        "a{b=\"\",b=\"\"} 1\n",
        "a{0=\"\"} 1\n",
        "a  1\n",
        "a one\n",
        "a_sum 1\n",
        "a 1\n# TYPE a counter\n",
        "a 1\n# HELP a Again.\n",
        "# HELP b Help.\na 1\n",
        "# TYPE b counter\nb 1\n",
        "\n",
    ] {
        let text = family(wrong);
        assert!(std::panic::catch_unwind(|| Exposition::read(&text)).is_err(), "{wrong:?}");
    }
}
