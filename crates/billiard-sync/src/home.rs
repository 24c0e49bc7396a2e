//! Where a primitive lives: its segment, and the registry of those who share it.
//!
//! Every primitive has a small segment of its own. A handle is that segment, the places of its words in it, and the registry in which
//! its maker takes part; it travels as the two segments' descriptors, and is checked when it arrives.

use std::os::fd::{AsFd, OwnedFd};

use billiard_shm::{
    Kind, NamedError, Place, Segment, SegmentOptions, Words, named,
    participants::{Member, Registry},
};
use billiard_wire::{attachments, generation::Forked};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    Error,
    words::{Owner, Peers},
};

/// A segment with the words of one primitive, and who shares it.
#[derive(Clone, Debug, Serialize)]
pub struct Home {
    segment: Segment,
    peers: Registered,
}

/// The registry, as the algorithms ask it.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Registered(Registry);

impl Home {
    /// A new one of so many bytes, all zero.
    pub(crate) fn create(kind: Kind, len: usize) -> Result<Self, Error> {
        Self::create_aligned(kind, len, align_of::<u64>())
    }

    /// The same, for a value that wants more than words do.
    pub(crate) fn create_aligned(kind: Kind, len: usize, align: usize) -> Result<Self, Error> {
        let peers = Registered(Registry::of_this_process()?);
        peers.0.member()?; // so that it is known now, and not at the first lock, whether this process can take part
        Ok(Self { segment: options().align(align.max(64)).tag(peers.0.tag()).create(kind, len)?, peers })
    }

    /// The words at that place.
    pub(crate) fn place<T: Words>(&self, offset: usize) -> Result<Place<T>, Error> {
        Ok(self.segment.place(offset)?)
    }

    /// That many words from that place on.
    pub(crate) fn places<T: Words>(&self, offset: usize, count: usize) -> Result<Place<[T]>, Error> {
        Ok(self.segment.places(offset, count)?)
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The others.
    pub(crate) fn peers(&self) -> &Registered {
        &self.peers
    }

    /// How many may share what this process makes.
    pub(crate) fn capacity_here() -> Result<usize, Error> {
        Ok(Registry::of_this_process()?.capacity())
    }

    /// How many may share it.
    pub(crate) fn capacity(&self) -> usize {
        self.peers.0.capacity()
    }

    /// This process, as a participant. An error in a copy that was forked by hand.
    #[inline]
    pub(crate) fn me(&self) -> Result<Member, Error> {
        Ok(self.peers.0.member()?)
    }

    /// The same, if it takes part already.
    #[inline]
    pub(crate) fn me_if_known(&self) -> Option<Member> {
        self.peers.0.member_if_known()
    }

    /// An error in a copy of the process that was forked by hand.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Forked> {
        self.segment.check_usable()
    }

    /// What to call an owner where it is shown.
    pub(crate) fn name_of(&self, owner: Option<Owner>) -> &'static str {
        match owner {
            None => "nobody",
            Some(owner) if self.me_if_known().is_some_and(|me| Owner::from(me) == owner) => "this process",
            Some(_) => "another process",
        }
    }
}

impl Peers for Registered {
    fn is_dead(&self, owner: Owner) -> bool {
        // A record is the owner's until another takes it; and then the owner is dead.
        match self.0.member_at(owner.index()) {
            Some(member) if Owner::from(member) == owner => self.is_gone(member),
            _ => true,
        }
    }

    fn is_gone(&self, member: Member) -> bool {
        // Where the kernel refuses to say, nobody is dead.
        matches!(self.0.is_alive(member), Ok(false))
    }
}

/// What is in a home: how every primitive is received, published and found.
pub trait Housed: Sized {
    /// Where it lives.
    fn home(&self) -> &Home;

    /// What its segment may say that it is; first what a new one says.
    fn kinds() -> Vec<Kind>;

    /// The primitive in a home of one of these kinds.
    fn housed(home: Home) -> Result<Self, Error>;
}

/// How every home is made and attached to.
fn options() -> SegmentOptions {
    // SAFETY: `checked` comes next, and a home hands its segment out to nobody but the primitive of that kind.
    unsafe { Segment::options().owned() }
}

/// A segment out of a message that may be a home.
struct Received(Segment);

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fd = attachments::take(u32::deserialize(deserializer)?).map_err(de::Error::custom)?;
        let segment = options().attach(fd).map_err(|error| de::Error::custom(attachments::reject(error)))?;
        Ok(Self(segment))
    }
}

fn checked<P: Housed>(segment: Segment, registry: Registry) -> Result<P, Error> {
    let kinds = P::kinds();
    let found = kinds.iter().find(|kind| segment.check(**kind).is_ok());
    if let Some(kind) = found.or(kinds.first()) {
        segment.check(*kind)?;
    }
    if segment.tag() != registry.tag() {
        return Err(Error::NotTogether);
    }
    P::housed(Home { segment, peers: Registered(registry) })
}

/// The primitive out of a message.
pub(crate) fn deserialize<'de, D: Deserializer<'de>, P: Housed>(deserializer: D) -> Result<P, D::Error> {
    let (Received(segment), registry) = <(Received, Registry)>::deserialize(deserializer)?;
    checked(segment, registry).map_err(|error| de::Error::custom(attachments::reject(error)))
}

/// Its two descriptors, under a name.
pub(crate) fn publish(home: &Home, name: &str) -> Result<named::Published, Error> {
    home.check()?;
    Ok(named::publish(name, &[home.segment.as_fd(), home.peers.0.as_fd()])?)
}

/// The primitive whose descriptors were published under that name.
pub(crate) fn find<P: Housed>(name: &str) -> Result<P, Error> {
    let fds = <[OwnedFd; 2]>::try_from(named::find_published(name)?);
    let [segment, registry] = fds.map_err(|_| NamedError::NotPublished(name.to_owned()))?;
    checked(options().attach(segment)?, Registry::attach(registry)?)
}
