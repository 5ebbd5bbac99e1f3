# What Cloudflare keeps, under which key and for how long. Every plan has all of this.
#
# https://developers.cloudflare.com/cache/how-to/cache-rules/settings/

locals {
  # As the rules language writes a set: {"cdn.example.com" "clips.example.com"}
  hostnames = "{${join(" ", [for name in var.hostnames : "\"${name}\""])}}"

  clips = "http.host in ${local.hostnames} and starts_with(http.request.uri.path, \"/videos/\")"

  # ?download=name is the one parameter that changes a reply: under one key for all, whoever asks
  # first would name everybody's file. The origin looks for these very letters too.
  cache_expression    = "(${local.clips} and not (http.request.uri.query contains \"download\"))"
  download_expression = "(${local.clips} and http.request.uri.query contains \"download\")"
}

resource "cloudflare_ruleset" "cache" {
  zone_id     = var.zone_id
  name        = "firstview: cache"
  description = "Clips are kept by their path, for as long as the origin says."
  kind        = "zone"
  phase       = "http_request_cache_settings"

  rules = [
    {
      ref         = "firstview_clips"
      description = "Clips: one copy for each path, whatever the query; a link's token is in no key."
      expression  = local.cache_expression
      action      = "set_cache_settings"
      enabled     = true
      action_parameters = {
        cache = true
        cache_key = {
          custom_key = {
            query_string = {
              exclude = {
                all = true
              }
            }
          }
        }
        # By the origin's Cache-Control (or Cloudflare-CDN-Cache-Control). An answer that says
        # nothing is none of firstview's: a proxy's own page in between, and is not kept.
        edge_ttl = {
          mode = "bypass_by_default"
        }
        browser_ttl = {
          mode = "respect_origin"
        }
        origin_range_requests = {
          mode = var.origin_range_requests
        }
        # A weak ETag makes Safari refuse ranges of an mp4.
        respect_strong_etags = true
      }
    },
    {
      ref         = "firstview_downloads"
      description = "Clips to be saved under a name: one copy for each query."
      expression  = local.download_expression
      action      = "set_cache_settings"
      enabled     = true
      action_parameters = {
        cache = true
        edge_ttl = {
          mode = "bypass_by_default"
        }
        browser_ttl = {
          mode = "respect_origin"
        }
        origin_range_requests = {
          mode = var.origin_range_requests
        }
        respect_strong_etags = true
      }
    },
  ]
}
