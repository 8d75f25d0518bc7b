//! What a script is made of, once it is read.

use std::time::Duration;

/// A line of a script, with the indented lines that belong to it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) text: String,
    pub(crate) step: Step,
}

#[derive(Debug)]
pub(crate) enum Step {
    /// Something about the server itself.
    Server(OfServer),
    /// Something about the script's own folder.
    Disk(String, OfDisk),
    /// Someone does or meets something.
    Actor(String, Act),
}

#[derive(Debug)]
pub(crate) enum OfServer {
    Starts(Vec<String>),
    Restarts,
    Receives(String),
    Exits(i32),
    Says(Data),
}

#[derive(Debug)]
pub(crate) enum OfDisk {
    Holds(Data),
    IsGone,
    HasMode(u32),
    LinksTo(String),
}

#[derive(Debug)]
pub(crate) enum Act {
    Connects,
    Leaves,
    Uses(usize),
    Sends(Data),
    Finishes,
    Requests(Request),
    /// Asks for what lasts; if the second is true, gets it.
    Opens(Request, bool, Lasting),
    Repeats(Request, What, Check),
    Says(Frame),
    /// Messages of JSON, in one write.
    SaysJson(Vec<String>),
    Hears(Coming, Timing),
    /// Hears anything until this comes.
    HearsOnUntil(Coming),
    Status(u16, Timing),
    Meets(What, Check),
    Nothing(Duration),
    End(Timing),
    Keeps(What, Option<String>, String),
}

/// What can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    WebSocket,
    /// A WebSocket with the subprotocol pousse.v1.
    V1,
    /// An event stream.
    Stream,
}

/// A request, without the fields that every request has.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) clauses: Vec<Clause>,
}

#[derive(Debug)]
pub(crate) enum Clause {
    With(String, String),
    Without(String),
    Content(Data),
}

/// What may come next on a WebSocket or an event stream.
#[derive(Debug)]
pub(crate) enum Coming {
    Frame(Frame),
    /// A text message with this JSON, compressed or not.
    Json(String, Squeezed),
    /// A block of an event stream: its lines, in their order.
    Block(Vec<(String, Operand)>),
}

/// A frame, or a message of one or more of them.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) squeezed: Squeezed,
    pub(crate) binary: bool,
    /// `None`: not said. To hear: any. To say: none; for a pong: that of the last ping.
    pub(crate) data: Option<Data>,
}

/// What RSV1 says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Squeezed {
    /// Nothing: it is not set.
    No,
    /// It is set, over these very bytes.
    As,
    /// It is set, and this is what comes of the bytes that it is over.
    To,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Message,
    First,
    Middle,
    Last,
    Ping,
    Pong,
    Close(Option<u16>),
}

/// When something may come, counted from when the actor last sent something.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) after: Option<Duration>,
    pub(crate) within: Option<Duration>,
}

/// A part of the answer at hand.
#[derive(Debug)]
pub(crate) enum What {
    Field(String),
    Content,
    Json(String),
}

/// What is demanded of it.
#[derive(Debug)]
pub(crate) enum Check {
    Absent,
    /// An operator, and what stands right of it.
    Is(Operator, Operand),
}

#[derive(Debug)]
pub(crate) enum Operand {
    Text(String),
    Data(Data),
    Json(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equals,
    Differs,
    Contains,
    Lacks,
    Begins,
    Ends,
    Has,
}

/// Bytes: strings, hex and repetitions one after another.
pub(crate) type Data = Vec<Part>;

#[derive(Debug, Clone)]
pub(crate) enum Part {
    Hex(Vec<u8>),
    /// As it stands between the quotes.
    Quoted(String),
    Repeated(usize, Box<Part>),
    Group(Data),
}
