# Gated clips: the edge checks the links that firstview signs, because what it has kept never
# reaches the origin. Needs a Pro plan or higher.
#
# https://developers.cloudflare.com/waf/custom-rules/use-cases/configure-token-authentication/

locals {
  gated = join(" or ", [for prefix in var.gated_path_prefixes : "starts_with(http.request.uri.path, \"${prefix}\")"])

  # 8 is the length of ?verify= (and of &verify=): what lies between the signed path and the time.
  # Without a flag the edge takes the standard base64 alphabet, percent-encoded.
  valid_links = join(" or ", [for secret in var.signing_secrets : "is_timed_hmac_valid_v0(\"${secret}\", http.request.uri, ${var.link_life}, http.request.timestamp.sec, 8)"])

  token_expression = "(http.host in ${local.hostnames} and (${local.gated}) and not (${local.valid_links}))"
}

resource "cloudflare_ruleset" "links" {
  count = var.check_tokens ? 1 : 0

  zone_id     = var.zone_id
  name        = "firstview: links"
  description = "Gated clips need a signed link that has not expired."
  kind        = "zone"
  phase       = "http_request_firewall_custom"

  rules = [
    {
      ref         = "firstview_links"
      description = "Refuse gated clips without a valid link."
      expression  = local.token_expression
      action      = "block"
      enabled     = true
    },
  ]
}
