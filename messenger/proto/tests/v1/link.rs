//! Two handshakes with nothing but bytes between them.

use bytes::BytesMut;
use messenger_proto::v1::{
    Accept, Accepting, Acceptor, Answer, Attempt, Connector, Dial, Heard, Opened, Reply, Request,
    Terms, V1Error,
};
use messenger_proto::{EntityAddr, EntityType, features};

pub(crate) fn addr(text: &str) -> EntityAddr {
    text.parse().unwrap()
}

/// A client that dials osd.0.
pub(crate) fn dial() -> Dial {
    Dial {
        own: EntityType::Client,
        peer: EntityType::Osd,
        own_addr: EntityAddr::unbound(9),
        target: addr("v1:10.0.0.2:6801/77"),
        supported: features::SUPPORTED,
        required: features::REQUIRED,
        lossy: true,
    }
}

/// The osd.0 it finds.
pub(crate) fn accepting() -> Accepting {
    let from = "10.0.0.1:34567".parse().unwrap();
    Accepting { own: EntityType::Osd, own_addr: addr("v1:10.0.0.2:6801/77"), from }
}

pub(crate) fn terms(_: EntityType) -> Terms {
    Terms { supported: features::SUPPORTED, required: features::REQUIRED, lossy: false }
}

pub(crate) struct Handshake {
    pub(crate) connector: Connector,
    pub(crate) acceptor: Acceptor,
    pub(crate) terms: fn(EntityType) -> Terms,
    pub(crate) to_server: BytesMut,
    pub(crate) to_client: BytesMut,
}

impl Handshake {
    pub(crate) fn new(dial: Dial, accepting: Accepting) -> Self {
        let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
        let connector = Connector::new(dial, &mut to_server);
        let acceptor = Acceptor::new(accepting, &mut to_client);
        Self { connector, acceptor, terms, to_server, to_client }
    }

    /// As [`Handshake::new`], past the greeting.
    pub(crate) fn greeted(dial: Dial, accepting: Accepting) -> Self {
        let mut link = Self::new(dial, accepting);
        assert!(matches!(link.client().unwrap(), Some(Reply::Greeted { .. })));
        assert_eq!(link.server().unwrap(), None);
        link
    }

    /// The client reads until it has something to tell, or all there is.
    pub(crate) fn client(&mut self) -> Result<Option<Reply>, V1Error> {
        while let Some(len) = self.connector.wants().filter(|len| *len <= self.to_client.len()) {
            let piece = self.to_client.split_to(len).freeze();
            let reply = self.connector.push(piece, &mut self.to_server)?;
            if reply.is_some() {
                return Ok(reply);
            }
        }
        Ok(None)
    }

    /// The server, likewise.
    pub(crate) fn server(&mut self) -> Result<Option<Heard>, V1Error> {
        while let Some(len) = self.acceptor.wants().filter(|len| *len <= self.to_server.len()) {
            let piece = self.to_server.split_to(len).freeze();
            let heard = self.acceptor.push(piece, &self.terms, &mut self.to_client)?;
            if heard.is_some() {
                return Ok(heard);
            }
        }
        Ok(None)
    }

    /// The client asks, and the server has to answer.
    pub(crate) fn request(&mut self, attempt: Attempt) -> Request {
        self.connector.connect(attempt, &mut self.to_server);
        match self.server().unwrap() {
            Some(Heard::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    /// The server answers, and the client hears it.
    pub(crate) fn answer(&mut self, answer: Answer) -> Reply {
        assert_eq!(self.acceptor.answer(answer, &mut self.to_client), None);
        self.client().unwrap().unwrap()
    }

    /// The server accepts with SEQ: what either side makes of it.
    pub(crate) fn open(&mut self, accept: Accept) -> [Opened; 2] {
        let Reply::Ready(client) = self.answer(Answer::Accept(accept)) else {
            panic!("not accepted");
        };
        let Some(Heard::Opened(server)) = self.server().unwrap() else {
            panic!("the client said nothing");
        };
        assert_eq!((self.connector.wants(), self.acceptor.wants()), (None, None));
        assert!(self.to_client.is_empty() && self.to_server.is_empty());
        [client, server]
    }
}
