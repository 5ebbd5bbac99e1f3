# The origin lock: every request that goes to the origin says a secret, in a header that visitors
# cannot set, because it is set over theirs. Every plan has this.
#
# https://developers.cloudflare.com/rules/transform/request-header-modification/

resource "cloudflare_ruleset" "origin" {
  count = var.lock_origin ? 1 : 0

  zone_id     = var.zone_id
  name        = "firstview: origin"
  description = "Requests to the origin carry its secret."
  kind        = "zone"
  phase       = "http_request_late_transform"

  rules = [
    {
      ref         = "firstview_origin_secret"
      description = "All paths: fal's webhooks come this way too."
      expression  = "(http.host in ${local.hostnames})"
      action      = "rewrite"
      enabled     = true
      action_parameters = {
        headers = {
          "X-Firstview-Origin" = {
            operation = "set"
            value     = var.origin_secret
          }
        }
      }
    },
  ]
}
