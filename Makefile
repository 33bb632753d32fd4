lattice_images = $(or $(shell command -v lattice-images),cargo run --release --quiet --locked --)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][^:]*\):.*## \(.*\)/\1#\2/p' Makefile | awk -F '#' '{ printf "%-26s %s\n", $$1, $$2 }'

.PHONY: build
build: ## the release build
	cargo build --release --locked

.PHONY: demo
demo: ## build the shipped images and push them to a registry on this machine
	@tests/provision/demo

.PHONY: demo-stop
demo-stop: ## stop what the demo started
	@[ -d target/demo ] || echo 'no demo is up' >&2
	@tests/provision/down target/demo

.PHONY: test
test: ## all tests, against a real Docker daemon and a real registry
	@tests/provision/test

.PHONY: test-engines
test-engines: ## the end-to-end tests against a current Docker engine, with either image store, and its BuildKit alone (as root)
	@tests/provision/test-engines

.PHONY: test-unit
test-unit: ## the tests that need only cargo
	cargo test --locked --lib --test architecture

.PHONY: bench
bench: ## what the job takes with other tools and with this one; a time is shown and never a test (takes an hour, as root)
	@tests/provision/bench

.PHONY: bench-growth
bench-growth: ## how its time grows with images, files, bytes and latency, as a table and a plot (as root)
	@tests/provision/bench growth

.PHONY: lint
lint: ## formatting, warnings, dependencies, shell scripts
	@.ci/lint

.PHONY: advisories
advisories: ## known vulnerabilities of the dependencies (needs the internet)
	@.ci/deny advisories

.PHONY: bases
bases: ## fetch what the shipped base images are made of
	@images/fetch-bases

# each pushes both variants, as it always has; FLAGS=... is passed on; a dry run (FLAGS=-n) fetches nothing
fetched = $(if $(filter -n% --dry-run,$(FLAGS)),,bases)

.PHONY: docker.push-all-user docker.push-all-images-user
docker.push-all-user: $(fetched) ## all images to the user's channel
	$(lattice_images) push-all --with-debug $(FLAGS)
docker.push-all-images-user: docker.push-all-user

.PHONY: docker.push-all-stable docker.push-all-images-stable
docker.push-all-stable: $(fetched) ## all images to the stable channel
	$(lattice_images) push-all --stable --with-debug $(FLAGS)
docker.push-all-images-stable: docker.push-all-stable

.PHONY: docker.push-image-user docker.push-image-stable
docker.push-image-user: image-is-named $(fetched) ## one image (IMAGE=...) to the user's channel
	$(lattice_images) push-image --with-debug $(FLAGS) $(IMAGE)
docker.push-image-stable: image-is-named $(fetched) ## one image (IMAGE=...) to the stable channel
	$(lattice_images) push-image --stable --with-debug $(FLAGS) $(IMAGE)

docker.push-image-user-%: $(fetched)
	$(lattice_images) push-image --with-debug $(FLAGS) $*
docker.push-image-stable-%: $(fetched)
	$(lattice_images) push-image --stable --with-debug $(FLAGS) $*

.PHONY: image-is-named
image-is-named:
	$(if $(IMAGE),,$(error IMAGE is not set (for example: IMAGE=envoy-prepare)))
