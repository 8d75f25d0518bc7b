//! Limits that are neither the word of a `Reason` nor of a `Held`, and where they are seen.

pub(crate) const SILENT: &[(&str, &str)] = &[
    ("unsent", "the system does it, and does not tell how often"),
    ("slow-handler", "`pousse_slow_handlers_total` counts it, `event=slow_handler` tells it"),
];
