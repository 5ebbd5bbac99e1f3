# What was set up, and the expressions for those who keep their rules by hand.

output "clip_urls" {
  description = "Where clips are from now on; <request_id> is fal's."
  value       = [for name in var.hostnames : "https://${name}/videos/<request_id>.mp4"]
}

output "cache_expression" {
  description = "Requests that the first cache rule is for: by path, without the query."
  value       = local.cache_expression
}

output "download_expression" {
  description = "Requests that the second cache rule is for: those that name a file to save."
  value       = local.download_expression
}

output "token_expression" {
  description = "Requests that are refused where check_tokens is on; it holds the signing secrets."
  value       = local.token_expression
  sensitive   = true
}

output "ruleset_ids" {
  description = "Ids of the rulesets, by what they are for; null where there is none."
  value = {
    cache  = cloudflare_ruleset.cache.id
    links  = one(cloudflare_ruleset.links[*].id)
    origin = one(cloudflare_ruleset.origin[*].id)
  }
}
