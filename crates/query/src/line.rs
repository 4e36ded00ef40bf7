//! A filter on a line of a log as it stands, without decoding it.
//!
//! kube-apiserver writes the members of an event in one order, and everything that most filters ask for
//! before the bodies: so a line is read from its front only as far as the filter looks, and the times and
//! annotations from its end. What is not plainly in that form is left to [`Filter::matches`].

mod scan;

use std::borrow::Cow;

use kaudit_event::{Level, Stage};

use crate::column::{Column, ColumnType};
use crate::derived;
use crate::expr::{Bodies, Expr, Leaf, Test, TextTest};
use crate::filter::{Filter, TEXT_COLUMNS};
use scan::{Front, Members, Strings, Tail};

/// Whether the event of a line satisfies a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "who asks must do something about each")]
pub enum LineMatch {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// The line has to be decoded to tell.
    Undecided,
}

impl From<bool> for LineMatch {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl std::ops::Not for LineMatch {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Undecided => Self::Undecided,
        }
    }
}

/// A filter with what it needs of a line.
#[derive(Clone, Debug)]
pub struct LineFilter {
    filter: Filter,
    stop: Stop,
    tail: NeedsTail,
}

/// The last member at the front that a filter looks at, in the order of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    #[default]
    Nothing,
    Level,
    AuditId,
    Stage,
    RequestUri,
    Verb,
    User,
    Impersonated,
    Constraint,
    SourceIps,
    UserAgent,
    ObjectRef,
    ResponseStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NeedsTail {
    Yes,
    No,
}

/// What a column needs of a line; `None` if only decoding gives it.
const fn needs(column: &Column) -> Option<(Stop, NeedsTail)> {
    use NeedsTail::{No, Yes};
    let stop = match column {
        Column::StageTimestamp
        | Column::RequestReceivedTimestamp
        | Column::Latency
        | Column::Annotation(_)
        | Column::Decision => return Some((Stop::Nothing, Yes)),
        Column::DeniedBy => return Some((Stop::ResponseStatus, Yes)),
        Column::Level => Stop::Level,
        Column::AuditId => Stop::AuditId,
        Column::Stage => Stop::Stage,
        Column::RequestUri => Stop::RequestUri,
        Column::Verb | Column::Mutating => Stop::Verb,
        Column::UserUsername
        | Column::UserUid
        | Column::UserGroups
        | Column::UserExtra(_)
        | Column::ActorKind => Stop::User,
        Column::ImpersonatedUsername
        | Column::ImpersonatedUid
        | Column::ImpersonatedGroups
        | Column::ImpersonatedExtra(_) => Stop::Impersonated,
        Column::ImpersonationConstraint => Stop::Constraint,
        Column::SourceIps | Column::SourceIp => Stop::SourceIps,
        Column::UserAgent | Column::Client => Stop::UserAgent,
        Column::ObjectResource
        | Column::ObjectNamespace
        | Column::ObjectName
        | Column::ObjectUid
        | Column::ObjectApiGroup
        | Column::ObjectApiVersion
        | Column::ObjectResourceVersion
        | Column::ObjectSubresource
        | Column::Bulk
        | Column::ExecCommand => Stop::ObjectRef,
        Column::ResponseCode | Column::ResponseStatus | Column::ResponseReason | Column::ResponseMessage => {
            Stop::ResponseStatus
        }
        Column::RequestObject(_)
        | Column::ResponseObject(_)
        | Column::Cluster
        | Column::Source
        | Column::Instance
        | Column::Seq
        | Column::PolicyRule
        | Column::EventBytes => return None,
    };
    Some((stop, No))
}

impl Filter {
    /// The filter prepared for lines. `None` if every line would have to be decoded: it looks into bodies
    /// or at what a line does not hold.
    #[must_use]
    pub fn for_lines(&self) -> Option<LineFilter> {
        let mut stop = Stop::Nothing;
        let mut tail = NeedsTail::No;
        let mut is_possible = true;
        self.expr().visit(&mut |leaf| match leaf {
            Leaf::Test(test) => match needs(&test.column) {
                Some((own, own_tail)) => {
                    stop = stop.max(own);
                    if own_tail == NeedsTail::Yes {
                        tail = NeedsTail::Yes;
                    }
                }
                None => is_possible = false,
            },
            Leaf::Text(text) => {
                stop = stop.max(Stop::ObjectRef);
                is_possible &= text.bodies == Bodies::Skipped;
            }
        });
        is_possible.then(|| LineFilter {
            filter: self.clone(),
            stop,
            tail,
        })
    }
}

impl LineFilter {
    /// Whether the event of a line, with or without its LF, satisfies the filter.
    ///
    /// What is read is held to the form in which kube-apiserver writes it: type meta and members in order,
    /// no blanks, no escapes where a value is looked at, a final `}`. What is not read, the bodies above
    /// all, is taken for what such a line holds there: valid JSON, and no member a second time. A line of
    /// which this may not be assumed has to be decoded. For each event that kaudit's encoder or
    /// kube-apiserver's writes, the answer is that of [`Filter::matches`], or [`LineMatch::Undecided`].
    #[must_use]
    pub fn matches(&self, line: &[u8]) -> LineMatch {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let Some(front) = Front::read(line, self.stop) else {
            return LineMatch::Undecided;
        };
        let tail = match self.tail {
            NeedsTail::Yes => match Tail::read(line) {
                Some(tail) => tail,
                None => return LineMatch::Undecided,
            },
            NeedsTail::No if line.ends_with(b"}") => Tail::default(),
            NeedsTail::No => return LineMatch::Undecided,
        };
        Line { front, tail }.holds(self.filter.expr())
    }
}

/// The parts of a line that were read.
struct Line<'a> {
    front: Front<'a>,
    tail: Tail<'a>,
}

/// It takes decoding to tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeedsDecoding;

type Read<T> = Result<T, NeedsDecoding>;

/// The text between two quotes, if it stands for itself.
pub(crate) fn as_it_stands(text: &[u8]) -> Read<&[u8]> {
    if memchr::memchr(b'\\', text).is_some() {
        Err(NeedsDecoding)
    } else {
        Ok(text)
    }
}

fn present(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text)
}

impl<'a> Line<'a> {
    fn holds(&self, expr: &Expr) -> LineMatch {
        match expr {
            Expr::Everything => LineMatch::Yes,
            Expr::Nothing => LineMatch::No,
            Expr::And(parts) => self.fold(parts, LineMatch::No),
            Expr::Or(parts) => self.fold(parts, LineMatch::Yes),
            Expr::Not(inner) => !self.holds(inner),
            Expr::Test(test) => self.test(test).map_or(LineMatch::Undecided, LineMatch::from),
            Expr::Text(text) => self.free_text(text),
        }
    }

    /// The first part that answers `decisive` decides; an undecided one leaves it open.
    fn fold(&self, parts: &[Expr], decisive: LineMatch) -> LineMatch {
        let mut answer = !decisive;
        for part in parts {
            let own = self.holds(part);
            if own == decisive {
                return decisive;
            }
            if own == LineMatch::Undecided {
                answer = LineMatch::Undecided;
            }
        }
        answer
    }

    fn free_text(&self, text: &TextTest) -> LineMatch {
        let mut answer = LineMatch::No;
        for column in TEXT_COLUMNS {
            match self.text(column) {
                Ok(value) if text.holds_text(value.as_deref()) => return LineMatch::Yes,
                Ok(_) => {}
                Err(NeedsDecoding) => answer = LineMatch::Undecided,
            }
        }
        answer
    }

    fn test(&self, test: &Test) -> Read<bool> {
        match test.column.column_type() {
            ColumnType::Text => Ok(test.holds_text(self.text(&test.column)?.as_deref())),
            ColumnType::TextList => self.texts(test),
            ColumnType::Number => Ok(test.holds_number(self.code()?)),
            ColumnType::Bool => Ok(test.holds_bool(self.bool(&test.column)?)),
            ColumnType::Time | ColumnType::Duration => Ok(test.holds_number(match test.column {
                Column::StageTimestamp => self.tail.stage,
                Column::RequestReceivedTimestamp => self.tail.received,
                _ => derived::latency(self.tail.received, self.tail.stage),
            })),
            ColumnType::Json => Err(NeedsDecoding),
        }
    }

    fn code(&self) -> Read<Option<i64>> {
        Members::of(self.front.response_status).number(b"code")
    }

    fn member(&self, object: Option<&'a [u8]>, key: &[u8]) -> Read<Option<&'a [u8]>> {
        let text = Members::of(object).text(key)?;
        Ok(text.and_then(present))
    }

    fn decision(&self) -> Read<Option<&'a [u8]>> {
        let text = Members::of(self.tail.annotations).text(derived::DECISION.as_bytes())?;
        Ok(text.and_then(present))
    }

    fn bool(&self, column: &Column) -> Read<Option<bool>> {
        let verb = as_it_stands(self.front.verb)?;
        if *column == Column::Mutating {
            return Ok(Some(derived::mutating(verb)));
        }
        let part = |key: &[u8]| {
            self.member(self.front.object_ref, key)
                .map(Option::unwrap_or_default)
        };
        Ok(Some(derived::bulk(
            verb,
            part(b"resource")?,
            part(b"namespace")?,
            part(b"name")?,
        )))
    }

    fn text(&self, column: &Column) -> Read<Option<Cow<'a, [u8]>>> {
        let front = &self.front;
        let plain = |text: &'a [u8]| as_it_stands(text).map(present);
        let reference = |key: &[u8]| self.member(front.object_ref, key);
        let status = |key: &[u8]| self.member(front.response_status, key);
        let name = |name: &'static str| Ok(Some(Cow::Borrowed(name.as_bytes())));
        let found = match column {
            Column::Level => {
                let level = Level::from_name(as_it_stands(front.level)?);
                return level.map_or(Ok(None), |level| name(level.as_str()));
            }
            Column::Stage => {
                let stage = Stage::from_name(as_it_stands(front.stage)?);
                return stage.map_or(Ok(None), |stage| name(stage.as_str()));
            }
            Column::AuditId => plain(front.audit_id)?,
            Column::RequestUri => plain(front.request_uri)?,
            Column::Verb => plain(front.verb)?,
            Column::UserUsername => self.member(front.user, b"username")?,
            Column::UserUid => self.member(front.user, b"uid")?,
            Column::ImpersonatedUsername => self.member(front.impersonated, b"username")?,
            Column::ImpersonatedUid => self.member(front.impersonated, b"uid")?,
            Column::ImpersonationConstraint => self.member(front.constraint, b"impersonationConstraint")?,
            Column::ActorKind => {
                let username = self.member(front.user, b"username")?.unwrap_or_default();
                return name(derived::actor_kind(username).as_str());
            }
            Column::SourceIp => match Strings::of(front.source_ips).last() {
                Some(last) => plain(last)?,
                None => None,
            },
            Column::UserAgent => plain(front.user_agent)?,
            Column::Client => return Ok(plain(front.user_agent)?.and_then(derived::client)),
            Column::ObjectResource => reference(b"resource")?,
            Column::ObjectNamespace => reference(b"namespace")?,
            Column::ObjectName => reference(b"name")?,
            Column::ObjectUid => reference(b"uid")?,
            Column::ObjectApiGroup => reference(b"apiGroup")?,
            Column::ObjectApiVersion => reference(b"apiVersion")?,
            Column::ObjectResourceVersion => reference(b"resourceVersion")?,
            Column::ObjectSubresource => reference(b"subresource")?,
            Column::ResponseStatus => status(b"status")?,
            Column::ResponseReason => status(b"reason")?,
            Column::ResponseMessage => status(b"message")?,
            Column::Annotation(key) => Members::of(self.tail.annotations).text(key.as_bytes())?,
            Column::Decision => self.decision()?,
            Column::DeniedBy => {
                let code = self.code()?;
                if code.is_none_or(|code| code < 400) {
                    return Ok(None);
                }
                let decision = self.decision()?.unwrap_or_default();
                let by = derived::denied_by(code, decision, status(b"message")?.unwrap_or_default());
                return by.map_or(Ok(None), |by| name(by.as_str()));
            }
            Column::ExecCommand => {
                if reference(b"subresource")? != Some(b"exec") {
                    return Ok(None);
                }
                let uri = as_it_stands(front.request_uri)?;
                return Ok(derived::exec_command(b"exec", uri).map(Cow::Owned));
            }
            _ => return Err(NeedsDecoding),
        };
        Ok(found.map(Cow::Borrowed))
    }

    fn texts(&self, test: &Test) -> Read<bool> {
        let front = &self.front;
        let list = match &test.column {
            Column::UserGroups => Members::of(front.user).value(b"groups")?,
            Column::UserExtra(key) => {
                let extra = Members::of(front.user).value(b"extra")?;
                Members::of(extra).value(key.as_bytes())?
            }
            Column::ImpersonatedGroups => Members::of(front.impersonated).value(b"groups")?,
            Column::ImpersonatedExtra(key) => {
                let extra = Members::of(front.impersonated).value(b"extra")?;
                Members::of(extra).value(key.as_bytes())?
            }
            Column::SourceIps => front.source_ips,
            _ => return Err(NeedsDecoding),
        };
        let mut answer = Ok(false);
        for text in Strings::of(list) {
            match as_it_stands(text) {
                Ok(text) if test.holds_text(Some(text)) => return Ok(true),
                Ok(_) => {}
                Err(NeedsDecoding) => answer = Err(NeedsDecoding),
            }
        }
        answer
    }
}
