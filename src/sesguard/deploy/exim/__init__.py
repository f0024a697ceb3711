"""The Exim deployer: lookup mode for the monolithic, the Debian and the cPanel layout."""
