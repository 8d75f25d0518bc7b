//! Limits that are neither the word of a `Reason` nor of a `Held`, and where they are seen.

pub(crate) const SILENT: &[(&str, &str)] =
    &[("slow-handler", "`pousse_slow_handlers_total` counts it, `event=slow_handler` tells it")];
