//! The body of an HTML page on its way through the proxy: unpacked, its links changed, and packed again, piece by piece.
//! Source: `rewriteResponse`, `k8s.io/apimachinery/pkg/util/proxy/transport.go`.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder};
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Frame;

use crate::reply::{Body, BodyError};

use super::html::Page;
use super::links::Links;

/// Compressed bytes that are unpacked at once; they may become a thousand times as many.
const MORSEL: usize = 1024;

/// How a page is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Deflate,
}

impl Packing {
    /// How the page of an answer is packed; `None` if it is no page, or packed in a way that is not known.
    pub(super) fn of_page(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().trim()
        };
        let media_type = text(&CONTENT_TYPE);
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if media_type != "text/html" {
            return None;
        }
        match text(&CONTENT_ENCODING) {
            "" => Some(Packing::Plain),
            "gzip" => Some(Packing::Gzip),
            "deflate" => Some(Packing::Deflate),
            _ => None,
        }
    }
}

/// A page with links that lead through the proxy.
pub(super) fn with_links(body: Body, links: Links, packing: Packing) -> Body {
    let page = Page::new(move |link: &str| links.rewrite(link));
    let press = match packing {
        Packing::Plain => Press::Plain(page),
        Packing::Gzip => Press::Gzip(Box::new((
            MultiGzDecoder::new(Pages::new(page)),
            GzEncoder::new(Vec::new(), flate2::Compression::fast()),
        ))),
        Packing::Deflate => Press::Deflate(Box::new((
            DeflateDecoder::new(Pages::new(page)),
            DeflateEncoder::new(Vec::new(), flate2::Compression::fast()),
        ))),
    };
    let frames = futures::stream::unfold(Some((BodyStream::new(body), press)), async |state| {
        let (mut body, mut press) = state?;
        match body.next().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => match press.feed(&data) {
                    Ok(data) => Some((Ok(Frame::data(data)), Some((body, press)))),
                    Err(error) => Some((Err(error.into()), None)),
                },
                // Trailers come after the last of the page.
                Err(_) => Some((Ok(Frame::data(Bytes::new())), Some((body, press)))),
            },
            Some(Err(error)) => Some((Err(error), None)),
            None => match press.finish() {
                Ok(data) => Some((Ok(Frame::data(data)), None)),
                Err(error) => Some((Err(BodyError::from(error)), None)),
            },
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// What unpacks a page, and what packs it again.
type Repacked<D, E> = Box<(D, E)>;

/// Unpacks a page, changes it and packs it again.
enum Press<F: FnMut(&str) -> Option<String>> {
    Plain(Page<F>),
    Gzip(Repacked<MultiGzDecoder<Pages<F>>, GzEncoder<Vec<u8>>>),
    Deflate(Repacked<DeflateDecoder<Pages<F>>, DeflateEncoder<Vec<u8>>>),
}

/// A page behind a decoder.
struct Pages<F> {
    page: Page<F>,
    out: Vec<u8>,
}

impl<F> Pages<F> {
    fn new(page: Page<F>) -> Self {
        Self {
            page,
            out: Vec::new(),
        }
    }
}

impl<F: FnMut(&str) -> Option<String>> Write for Pages<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.page.feed(data, &mut self.out);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&str) -> Option<String>> Press<F> {
    fn feed(&mut self, data: &[u8]) -> io::Result<Bytes> {
        match self {
            Press::Plain(page) => {
                let mut out = Vec::with_capacity(data.len());
                page.feed(data, &mut out);
                Ok(out.into())
            }
            Press::Gzip(both) => {
                let (unpack, pack) = &mut **both;
                through(data, unpack, MultiGzDecoder::get_mut, pack)?;
                Ok(std::mem::take(pack.get_mut()).into())
            }
            Press::Deflate(both) => {
                let (unpack, pack) = &mut **both;
                through(data, unpack, DeflateDecoder::get_mut, pack)?;
                Ok(std::mem::take(pack.get_mut()).into())
            }
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        let end = |mut pages: Pages<F>| {
            pages.page.finish(&mut pages.out);
            pages.out
        };
        match self {
            Press::Plain(mut page) => {
                let mut out = Vec::new();
                page.finish(&mut out);
                Ok(out.into())
            }
            Press::Gzip(both) => {
                let (unpack, mut pack) = *both;
                pack.write_all(&end(unpack.finish()?))?;
                Ok(pack.finish()?.into())
            }
            Press::Deflate(both) => {
                let (unpack, mut pack) = *both;
                pack.write_all(&end(unpack.finish()?))?;
                Ok(pack.finish()?.into())
            }
        }
    }
}

/// Unpacks data into the page behind `unpack`, and packs what comes out of it so that it can be sent at once.
fn through<D: Write, F>(
    data: &[u8],
    unpack: &mut D,
    pages: impl Fn(&mut D) -> &mut Pages<F>,
    pack: &mut impl Write,
) -> io::Result<()> {
    for morsel in data.chunks(MORSEL) {
        unpack.write_all(morsel)?;
        pack.write_all(&std::mem::take(&mut pages(unpack).out))?;
    }
    unpack.flush()?;
    pack.write_all(&std::mem::take(&mut pages(unpack).out))?;
    pack.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_page_is_known_by_its_media_type() {
        let of = |pairs: &[(&'static str, &'static str)]| Packing::of_page(&headers(pairs));
        let html = ("content-type", "text/html; charset=utf-8");
        assert_eq!(of(&[html]), Some(Packing::Plain));
        assert_eq!(
            of(&[html, ("content-encoding", "gzip")]),
            Some(Packing::Gzip)
        );
        assert_eq!(of(&[html, ("content-encoding", "br")]), None);
        assert_eq!(of(&[("content-type", "text/plain")]), None);
        assert_eq!(of(&[]), None);
    }

    #[tokio::test]
    async fn a_packed_page_is_changed_and_packed_again() {
        let page = b"<a href=\"/x\">x</a>".repeat(5000);
        let links = Links {
            prefix: "/p".into(),
            backend: String::new(),
            client: "c".into(),
        };
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&page).unwrap();
        let packed = reply::full(encoder.finish().unwrap());
        let body = with_links(packed, links, Packing::Gzip);
        let changed = body.collect().await.unwrap().to_bytes();
        let mut decoder = MultiGzDecoder::new(Vec::new());
        decoder.write_all(&changed).unwrap();
        let unpacked = decoder.finish().unwrap();
        assert_eq!(unpacked, b"<a href=\"/p/x\">x</a>".repeat(5000));
    }

    #[tokio::test]
    async fn a_page_that_is_not_packed_as_it_says_ends_with_an_error() {
        let links = Links {
            prefix: String::new(),
            backend: String::new(),
            client: String::new(),
        };
        let body = with_links(reply::full("no gzip"), links, Packing::Gzip);
        assert!(body.collect().await.is_err());
    }
}
