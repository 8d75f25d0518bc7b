//! One writes, everyone reads:
//!
//! ```console
//! $ cargo run --example authorize
//! $ curl -d 'It rains.' http://127.0.0.1:8080/api/messages                                 401
//! $ curl -d 'It rains.' -H 'Authorization: Bearer sesame' http://127.0.0.1:8080/api/messages
//! ```

use pousse::{
    Access, CloseCode, Config, ConnId, Context, Decision, Denial, Error, Grant, Handler, Message,
    Request, Server,
};

struct News;

/// What the server keeps with a client that is the editor. The number means something to us alone.
const EDITOR: Grant = Grant(1);

/// A program of one's own keeps a hash of it, in a file.
const TOKEN: &str = "sesame";

const WHO: Denial = Denial::unauthorized(
    "show the editor's token to write here",
    &[("WWW-Authenticate", "Bearer realm=\"news\"")],
);

impl News {
    fn is_editor(request: &Request) -> bool {
        let in_field = request.field("authorization").and_then(|it| it.strip_prefix("Bearer "));
        // A page cannot send a field with a WebSocket, so there it stands in the URL.
        let mut query = request.query().flatten();
        let in_url = query.find(|(name, _)| request.is_upgrade() && name == "token");
        in_field == Some(TOKEN) || in_url.is_some_and(|(_, token)| token == TOKEN)
    }
}

impl Handler for News {
    /// Before anything is given, and before the content of a `POST` is read.
    fn authorize(
        &mut self,
        request: &Request,
        access: Access<'_>,
        _: &mut Context<'_>,
    ) -> Decision {
        match access {
            // Also when it only wants to read: later it may write.
            _ if Self::is_editor(request) => Decision::Grant(EDITOR),
            Access::Read(_) => Decision::Allow,
            _ => Decision::Refuse(WHO),
        }
    }

    /// For each command of pousse.v1 on a WebSocket that is open.
    fn authorize_again(
        &mut self,
        _: ConnId,
        grant: Option<Grant>,
        access: Access<'_>,
        _: &mut Context<'_>,
    ) -> Decision {
        match (access, grant) {
            (Access::Read(_), _) | (_, Some(EDITOR)) => Decision::Allow,
            _ => Decision::Refuse(Denial::forbidden("only the editor writes here")),
        }
    }

    /// In text mode a message is ours to publish, so it is ours to ask as well.
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        match ctx.grant(conn) {
            Some(EDITOR) => drop(ctx.broadcast(message)),
            _ => ctx.close(conn, CloseCode::Policy, "only the editor writes here"),
        }
    }
}

fn main() -> Result<(), Error> {
    let mut server = Server::bind(Config::default(), News)?;
    println!("the news are at {}", server.addresses().join(" "));
    server.run()
}
