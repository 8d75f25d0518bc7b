//! Unit tests of `forms.rs`: what each form is, and what the compressed ones cost.

use super::*;
use crate::forms;
use crate::limits::Limits;
use crate::tick::Tick;

fn made(message: Message<'_>, form: Form) -> String {
    let mut log = Log::new(7, Limits::default());
    let (number, id) = log.append("g", message, None, Tick(0)).unwrap();
    let topic = log.topic(number);
    let entry = topic.after(id.seq - 1).next().unwrap();
    let bytes = forms::form(&log, topic, entry, form);
    assert_eq!(forms::form(&log, topic, entry, form), bytes);
    assert_eq!(log.encodings(), 1, "it is made once");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn an_entry_leaves_in_each_form() {
    let hello = Message::Text("Bon\njour");
    let envelope = r#"{"id":"7-1","topic":"g","data":"Bon\njour"}"#;
    assert_eq!(made(hello, Form::Envelope), envelope);
    assert_eq!(made(hello, Form::Session), format!("\u{fffd}+{envelope}"), "0x81, 43 bytes");
    assert_eq!(made(hello, Form::Event), format!("id: 7-1\ndata: {envelope}\n\n"));
    assert_eq!(made(hello, Form::EventText), "id: 7-1\ndata: Bon\ndata: jour\n\n");
    let bytes = Message::Binary(b"\xff\0");
    assert_eq!(made(bytes, Form::Envelope), r#"{"id":"7-1","topic":"g","base64":"/wA="}"#);
    assert_eq!(made(bytes, Form::EventText), "id: 7-1\nevent: binary\ndata: /wA=\n\n");
}

#[test]
fn every_line_end_begins_a_line_of_data_and_none_can_end_the_block() {
    for (text, lines) in [
        ("", &[""][..]),
        ("a", &["a"]),
        ("a\rb\nc\r\nd", &["a", "b", "c", "d"]),
        ("\n", &["", ""]),
        ("\r\r\n\n", &["", "", "", ""]),
        (" a: \u{2028}\u{85}é", &[" a: \u{2028}\u{85}é"]),
        ("a\n\nid: 9-9\n\n", &["a", "", "id: 9-9", "", ""]),
    ] {
        let data: String = lines.iter().map(|line| format!("data: {line}\n")).collect();
        assert_eq!(made(text.into(), Form::EventText), format!("id: 7-1\n{data}\n"));
    }
}

#[cfg(feature = "deflate")]
mod deflated {
    use super::*;
    use crate::config::Config;
    use crate::deflate::Window;
    use crate::topic::TopicNumber;

    const FORMS: [Form; 4] = [
        Form::FrameDeflated(Window::Nine),
        Form::FrameDeflated(Window::Fifteen),
        Form::SessionDeflated(Window::Nine),
        Form::SessionDeflated(Window::Fifteen),
    ];

    /// A turn, and a log with entries in one topic.
    struct Case {
        turn: Turn,
        log: Log,
        number: TopicNumber,
    }

    impl Case {
        /// So many entries of this content.
        fn of(count: usize, content: Message<'_>) -> Self {
            Self::with(1 << 24, std::iter::repeat_n(content, count))
        }

        /// Entries of these contents, in a log that holds so many bytes.
        fn with<'m>(history_total: usize, contents: impl Iterator<Item = Message<'m>>) -> Self {
            let mut config = Config::default();
            config.limits.max_message = 1 << 20;
            config.limits.history_total = history_total;
            let mut log = Log::new(7, config.limits.clone());
            for content in contents {
                log.append("g", content, None, Tick(0)).unwrap();
            }
            let number = log.find("g").unwrap();
            Self { turn: Turn::new(&config), log, number }
        }

        fn topic(&self) -> &Topic {
            self.log.topic(self.number)
        }

        /// The first entry.
        fn entry(&self) -> &Entry {
            self.topic().after(0).next().unwrap()
        }

        /// Has each entry compressed, unless the turn has done enough.
        fn deflate(&mut self, form: Form) {
            let topic = self.log.topic(self.number);
            for entry in topic.after(0) {
                deflate(&self.log, topic, entry, form, &mut self.turn);
            }
        }

        /// The first entry as it leaves in this form.
        fn form(&self, form: Form) -> Bytes {
            forms::form(&self.log, self.topic(), self.entry(), form)
        }

        /// Compressions with the small window, and with the large one.
        fn compressions(&self) -> (u64, u64) {
            (self.turn.counters.deflated_9, self.turn.counters.deflated_15)
        }

        /// All that was counted is counted back once nothing is left.
        fn counts_back(mut self) {
            self.log.clear(self.number);
            self.log.trim(Tick(0));
            assert_eq!(self.log.bytes(), 0);
        }
    }

    /// Numbers that look like chance.
    fn chance() -> impl Iterator<Item = u32> {
        let next = |it: &u32| Some(it.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        std::iter::successors(next(&1), next)
    }

    #[test]
    fn an_entry_is_compressed_once_in_each_form_and_window_and_kept_so() {
        let content = "Bonjour, ".repeat(200);
        let mut case = Case::of(1, content.as_str().into());
        let before = case.log.bytes();
        for form in FORMS {
            case.deflate(form);
            case.deflate(form);
            let bytes = case.form(form);
            assert_eq!(bytes[0], 0xc1, "FIN, RSV1, text");
            let payload = if bytes[1] == 126 { &bytes[4..] } else { &bytes[2..] };
            let plain = case.form(form.plain().0);
            let turn = &mut case.turn;
            let inflated = turn.deflate.inflate(payload, 10_000, &mut turn.counters).unwrap();
            assert_eq!(inflated, &plain[4..], "{form:?}");
        }
        assert_eq!((case.compressions(), case.log.encodings()), ((2, 2), 5));
        let made = case.log.bytes();
        case.log.drop_encoded();
        let kept = case.log.bytes();
        assert!((before..made).contains(&kept), "what is compressed is kept and counted");
        FORMS.into_iter().for_each(|form| case.deflate(form));
        assert_eq!(case.compressions(), (2, 2));
        case.counts_back();
    }

    #[test]
    fn what_is_short_or_becomes_no_shorter_leaves_as_it_is_and_is_tried_once() {
        let noise: Vec<u8> = chance().map(|it| it.to_be_bytes()[0]).take(2000).collect();
        let short = "a".repeat(1023);
        for (content, tries) in [(Message::from(&short), 0), (Message::from(&noise), 1)] {
            let mut case = Case::of(1, content);
            for form in FORMS.into_iter().take(2).cycle().take(8) {
                case.deflate(form);
                assert_eq!(case.form(form), case.entry().frame());
                case.log.drop_encoded();
            }
            assert_eq!(case.compressions(), (tries, tries));
            assert_eq!(case.turn.counters.deflated_in_vain, 2 * tries);
            case.counts_back();
        }
    }

    #[test]
    fn a_turn_compresses_so_much_and_what_comes_after_leaves_as_it_is() {
        let content = "Bonjour, ".repeat(5000);
        let mut case = Case::of(40, content.as_str().into());
        let form = Form::FrameDeflated(Window::Fifteen);
        let compressed = |case: &mut Case| {
            case.deflate(form);
            let (log, topic) = (&case.log, case.topic());
            let pieces = topic.after(0).map(|it| forms::form(log, topic, it, form));
            let plain = pieces.filter(|piece| piece[0] == 0x81).count() as u64;
            assert_eq!(case.turn.counters.deflated_15 + plain, 40);
            case.turn.counters.deflated_15
        };
        assert_eq!(compressed(&mut case), 24, "1 MiB and the message that passes it");
        assert_eq!(compressed(&mut case), 24);
        case.turn.begin(Tick(1), 0);
        assert_eq!(compressed(&mut case), 40);
    }

    #[test]
    fn what_is_six_times_as_long_as_json_counts_as_that() {
        let content = "\u{1}".repeat(60_000);
        let mut case = Case::of(10, content.as_str().into());
        case.deflate(Form::SessionDeflated(Window::Fifteen));
        assert_eq!(case.compressions(), (0, 3), "3 of 360 KB pass 1 MiB");
    }

    #[test]
    fn what_is_too_long_as_json_leaves_as_it_is_and_is_tried_no_more() {
        let content = "\u{1}".repeat(200_000);
        let mut case = Case::of(1, content.as_str().into());
        let form = Form::SessionDeflated(Window::Fifteen);
        case.deflate(form);
        assert_eq!(case.compressions(), (0, 0));
        assert!(case.entry().deflated(form).is_some_and(Bytes::is_empty));
        assert_eq!(case.form(form)[0], 0x81);
    }

    #[test]
    fn compressed_forms_make_room_before_messages_do_but_for_a_quarter() {
        let mut hex = chance().map(|it| format!("{:x}", it >> 28));
        let contents: Vec<String> = (0..14).map(|_| hex.by_ref().take(10_000).collect()).collect();
        let mut case = Case::with(200_000, contents.iter().map(Message::from));
        for form in FORMS {
            for entry in 0..14 {
                case.turn.begin(Tick(0), 0);
                let topic = case.log.topic(case.number);
                deflate(&case.log, topic, topic.get(entry).unwrap(), form, &mut case.turn);
            }
            case.log.drop_encoded();
            case.log.trim(Tick(0));
            assert_eq!(case.topic().len(), 14, "{form:?}");
            assert!(case.log.bytes() <= 200_000);
        }
        assert_eq!((case.compressions().1, case.turn.counters.deflated_in_vain), (28, 0));
        let held =
            |form| case.topic().after(0).filter(|entry| entry.deflated(form).is_some()).count();
        let counts = FORMS.map(held);
        assert!(counts[3] > 0 && counts[0] == 0, "the first made went first: {counts:?}");
    }
}
