# What this needs, and whose account it works on: the API token comes from CLOUDFLARE_API_TOKEN.

terraform {
  # 1.9: a variable's validation may look at another variable.
  required_version = ">= 1.9"

  required_providers {
    cloudflare = {
      source = "cloudflare/cloudflare"
      # Cache rules learnt origin_range_requests late: README.md says how to tell that yours knows it.
      version = "~> 5.27"
    }
  }
}

provider "cloudflare" {}
