//! The daemon as an application of the library: who may do what, what its signals mean, and that in
//! text mode what a client sends is published to the topic that it reads.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use pousse::{
    Access, CloseCode, ConnId, Context, Decision, Denial, Grant, Handler, Message, Reason, Request,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::signal_name;
use signal_hook_mio::v1_0::Signals;

use crate::bearer::Bearers;
use crate::reload::Sources;
use crate::systemd;
use crate::tokens::Names;

/// The token of the wakes in which the service manager is told that the loop goes round.
pub(crate) const HEARTBEAT: u64 = 0;

/// The token of the signals' pipe.
pub(crate) const SIGNALS: u16 = 0;

/// See the head of this file.
pub(crate) struct Daemon {
    pub(crate) signals: Rc<RefCell<Signals>>,
    pub(crate) is_draining: bool,
    pub(crate) bearers: Bearers,
    pub(crate) sources: Sources,
    /// The limit of that name.
    pub(crate) drain: Duration,
    pub(crate) heartbeat: Option<Duration>,
}

impl Handler for Daemon {
    fn authorize(
        &mut self,
        request: &Request,
        access: Access<'_>,
        _: &mut Context<'_>,
    ) -> Decision {
        self.bearers.decide(request, access)
    }

    fn authorize_again(
        &mut self,
        conn: ConnId,
        grant: Option<Grant>,
        access: Access<'_>,
        _: &mut Context<'_>,
    ) -> Decision {
        match self.bearers.decide_again(conn, grant, access) {
            Ok(()) => Decision::Allow,
            Err(why) => Decision::Refuse(Denial::forbidden(why)),
        }
    }

    fn name_of(&self, grant: Grant) -> Option<&str> {
        self.bearers.name(grant)
    }

    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        if !ctx.may_publish() {
            let text = "publishing is not allowed here; see --publish";
            return ctx.close_because(conn, CloseCode::Policy, text, Reason::Publish);
        }
        let Some(topic) = ctx.topic(conn) else { return };
        let access = Access::Publish(&topic);
        if !ctx.is_owner(conn)
            && let Err(why) = self.bearers.decide_again(conn, ctx.grant(conn), access)
        {
            return ctx.close_because(conn, CloseCode::Policy, why, Reason::Authority);
        }
        // Length and topic were looked at before, so what is left passes: no room right now.
        if let Err(error) = ctx.publish(&topic, message) {
            ctx.close(conn, CloseCode::Again, &error.to_string());
        }
    }

    fn on_ready(&mut self, token: usize, ctx: &mut Context<'_>) {
        debug_assert_eq!(token, usize::from(SIGNALS), "nothing else is watched");
        let signals: Vec<i32> = self.signals.borrow_mut().pending().collect();
        for signal in signals {
            log::info!("event=signal name={}", signal_name(signal).unwrap_or("?"));
            match signal {
                SIGTERM | SIGINT if self.is_draining => ctx.stop(),
                SIGTERM | SIGINT | SIGUSR2 if !self.is_draining => {
                    self.is_draining = true;
                    systemd::stopping(self.drain);
                    ctx.drain(if signal == SIGUSR2 { CloseCode::Restart } else { CloseCode::Away });
                }
                SIGUSR1 => self.say_counters(ctx),
                SIGHUP => self.sources.reload(&mut self.bearers, self.is_draining, ctx),
                _ => {}
            }
        }
    }

    fn on_wake(&mut self, token: u64, ctx: &mut Context<'_>) {
        debug_assert_eq!(token, HEARTBEAT, "nothing else is asked for");
        // Lines that were suppressed are told of even if no other follows.
        log::logger().flush();
        systemd::alive();
        if let Some(pause) = self.heartbeat {
            ctx.wake_after(pause, HEARTBEAT);
        }
    }
}

impl Daemon {
    fn say_counters(&self, ctx: &Context<'_>) {
        log::info!("event=counters {}", ctx.counters());
        for (name, subscribes, publishes) in self.bearers.names.iter().flat_map(Names::uses) {
            log::info!("event=token name={name} subscribes={subscribes} publishes={publishes}");
        }
    }
}
