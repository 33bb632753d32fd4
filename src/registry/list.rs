//! Lists of tags and repositories, page by page.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::LINK;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::ask::Ask;
use super::error::Error;
use super::host::Host;
use super::retry::retried;
use super::tokens::Scope;
use super::{Client, Remote};
use crate::reference::{Repository, Tag, is_component};

const A_PAGE: usize = 1000;
const MOST_PAGES: usize = 1000;
const MOST_ENTRIES: usize = 200_000;
/// Google gives all tags with what they name in one answer.
const LONGEST_PAGE: usize = 64 * 1024 * 1024;

/// What is in a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub tags: BTreeSet<Tag>,
    /// Google: the next components of the repositories below this one.
    pub children: BTreeSet<String>,
}

impl Remote {
    /// The tags, and at Google's registries what is below and what the tags name; `None` where there is no such repository.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn tags(&self) -> Result<Option<Listing>, Error> {
        let (path, scope) = (self.path("tags/list"), Scope::pull(self.repository.path()));
        let pages = pages::<TagsPage>(&self.host, &path, &scope, &self.subject("its tags")).await?;
        let Some(pages) = pages else { return Ok(None) };
        let mut listing = Listing::default();
        for page in pages {
            listing.tags.extend(valid_tags(page.tags.unwrap_or_default()));
            listing
                .children
                .extend(page.child.unwrap_or_default().into_iter().filter(|child| is_component(child)));
        }
        Ok(Some(listing))
    }
}

impl Client {
    /// Every repository of a registry, as far as it tells; none where it has no catalog.
    ///
    /// # Errors
    /// `Denied`, `Unauthorized` or `Unsupported` where the registry does not tell.
    pub async fn catalog(&self, host: &str) -> Result<Option<Vec<Repository>>, Error> {
        let subject = format!("{host}: its catalog");
        let pages = pages::<CatalogPage>(&self.host(host), "v2/_catalog", &Scope::catalog(), &subject).await?;
        let Some(pages) = pages else { return Ok(None) };
        let names = pages.into_iter().flat_map(|page| page.repositories.unwrap_or_default());
        // a name that is none cannot be asked for
        let repositories = names.filter_map(|name| format!("{host}/{name}").parse().ok());
        Ok(Some(repositories.collect()))
    }
}

trait Page: DeserializeOwned {
    fn entries(&self) -> usize;
}

/// Source: go-containerregistry's `pkg/v1/google/list.go`, for what is below.
#[derive(Deserialize)]
struct TagsPage {
    tags: Option<Vec<String>>,
    child: Option<Vec<String>>,
}

impl Page for TagsPage {
    fn entries(&self) -> usize {
        self.tags.as_ref().map_or(0, Vec::len) + self.child.as_ref().map_or(0, Vec::len)
    }
}

#[derive(Deserialize)]
struct CatalogPage {
    repositories: Option<Vec<String>>,
}

impl Page for CatalogPage {
    fn entries(&self) -> usize {
        self.repositories.as_ref().map_or(0, Vec::len)
    }
}

fn valid_tags(tags: Vec<String>) -> impl Iterator<Item = Tag> {
    tags.into_iter().filter_map(|tag| tag.parse().ok())
}

/// All pages from `path` on; `None` where there is nothing.
async fn pages<P: Page>(host: &Arc<Host>, path: &str, scope: &Scope, subject: &str) -> Result<Option<Vec<P>>, Error> {
    let first = format!("{path}?n={A_PAGE}");
    let mut ask = Ask::new(Method::GET, first, scope.clone(), subject.to_owned());
    let (mut found, mut entries, mut length): (Vec<P>, _, _) = (Vec::new(), 0, 0);
    for _ in 0..MOST_PAGES {
        let Some((bytes, next)) = retried(|| page(host, &ask)).await? else {
            return Ok(None);
        };
        let page: P = serde_json::from_slice(&bytes).map_err(|_| Error::malformed(subject, "the registry's list is none"))?;
        entries += page.entries();
        length += bytes.len();
        if entries > MOST_ENTRIES || length > LONGEST_PAGE {
            break;
        }
        found.push(page);
        match next {
            None => return Ok(Some(found)),
            Some(next) => ask = ask.at(next),
        }
    }
    Err(Error::malformed(subject, "the registry's list does not end"))
}

async fn page(host: &Arc<Host>, ask: &Ask) -> Result<Option<(Bytes, Option<Url>)>, Error> {
    let answer = host.attempt(ask).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let answer = answer.expect(&[StatusCode::OK]).await?;
    let next = answer.header(LINK.as_str()).and_then(next_of);
    let next = next.and_then(|next| answer.url.join(next).ok());
    if next.as_ref().is_some_and(|next| next.origin() != answer.url.origin()) {
        return Err(Error::malformed(&ask.subject, "the registry's list goes on at another host"));
    }
    Ok(Some((answer.bytes(LONGEST_PAGE).await?, next)))
}

/// The target of `<...>; rel="next"` (RFC 8288).
fn next_of(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = |parameter: &str| {
        let parameter = parameter.trim().to_ascii_lowercase();
        parameter == "rel=\"next\"" || parameter == "rel=next"
    };
    parameters.split([';', ',']).any(is_next).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_in_the_link() {
        assert_eq!(next_of("</v2/_catalog?last=b&n=2>; rel=\"next\""), Some("/v2/_catalog?last=b&n=2"));
        assert_eq!(next_of("<http://h/x>;rel=next"), Some("http://h/x"));
        for none in ["", "</x>", "</x>; rel=\"prev\"", "/x; rel=next", "<"] {
            assert_eq!(next_of(none), None, "{none}");
        }
    }

    #[test]
    fn googles_list_tells_what_is_below() {
        let text = r#"{"child":["kevin","Bad/"],"manifest":{"sha256:bad":{"imageSizeBytes":"7"}},"name":"lattice-dev","tags":["latest"]}"#;
        let page: TagsPage = serde_json::from_str(text).expect("a page");
        assert_eq!(page.entries(), 3);
        assert_eq!(page.child, Some(vec!["kevin".to_owned(), "Bad/".to_owned()]));
    }
}
