# Tiered cache: data centres ask each other before they ask the origin, so that the origin sees one
# first view of a clip rather than one from every city. It holds for the whole zone.
#
# https://developers.cloudflare.com/cache/how-to/tiered-cache/

resource "cloudflare_argo_tiered_caching" "tiered" {
  count = var.tiered_cache == "leave" ? 0 : 1

  zone_id = var.zone_id
  value   = var.tiered_cache == "off" ? "off" : "on"
}

resource "cloudflare_tiered_cache" "smart" {
  count = var.tiered_cache == "leave" ? 0 : 1

  zone_id = var.zone_id
  value   = var.tiered_cache == "smart" ? "on" : "off"

  # Smart is a way of tiering, and needs tiering first.
  depends_on = [cloudflare_argo_tiered_caching.tiered]
}
