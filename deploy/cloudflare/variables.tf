# Everything that differs between two owners. terraform.tfvars.example shows them filled in.

variable "zone_id" {
  description = "Id of the zone (the domain) that the hostnames belong to; the dashboard's overview shows it."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{32}$", var.zone_id))
    error_message = "A zone id is 32 hexadecimal digits."
  }
}

variable "hostnames" {
  description = "Hostnames under which viewers reach firstview; the host of FIRSTVIEW_PUBLIC_URL is one of them."
  type        = list(string)

  validation {
    condition     = length(var.hostnames) > 0
    error_message = "Name at least one hostname."
  }
  validation {
    condition     = alltrue([for name in var.hostnames : can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", name))])
    error_message = "Write hostnames in lower case, without a scheme, a port or a path: cdn.example.com."
  }
}

variable "origin_range_requests" {
  description = "on: Cloudflare asks for the pieces that players want, 1 MiB at a time; off: for whole clips, as Cache Reserve needs it; default: what the zone does."
  type        = string
  default     = "on"

  validation {
    condition     = contains(["on", "off", "default"], var.origin_range_requests)
    error_message = "Write on, off or default."
  }
}

variable "tiered_cache" {
  description = "Which data centres ask the origin: smart (one near it; every plan), generic (several; Enterprise), off (each for itself), leave (the zone's own setting stays). It holds for the whole zone."
  type        = string
  default     = "smart"

  validation {
    condition     = contains(["smart", "generic", "off", "leave"], var.tiered_cache)
    error_message = "Write smart, generic, off or leave."
  }
}

variable "lock_origin" {
  description = "Send the origin secret along with every request, so that firstview can refuse all others."
  type        = bool
  default     = true
}

variable "origin_secret" {
  description = "One of the values of FIRSTVIEW_ORIGIN_SECRET. Wanted where lock_origin is true."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = !var.lock_origin || can(regex("^[!#-+\\x2d-\\x5b\\x5d-\\x7e]{16,}$", var.origin_secret))
    error_message = "With lock_origin, give origin_secret: 16 or more printable characters without blanks, commas, quotes and backslashes, as openssl rand -hex 32 writes them."
  }
}

variable "check_tokens" {
  description = "Refuse requests for gated clips without a valid link, at the edge. Needs a Pro plan or higher."
  type        = bool
  default     = false
}

variable "gated_path_prefixes" {
  description = "Paths that need a link, by their beginning. All that firstview gates has to be among them."
  type        = list(string)
  default     = ["/videos/"]

  validation {
    condition     = length(var.gated_path_prefixes) > 0 && alltrue([for prefix in var.gated_path_prefixes : can(regex("^/videos/[A-Za-z0-9_-]*$", prefix))])
    error_message = "Every prefix begins with /videos/, and goes on with what a request id may begin with."
  }
}

variable "signing_secrets" {
  description = "Secrets of FIRSTVIEW_SIGNING_KEYS, without their names; links of any of them are let through. Wanted where check_tokens is true."
  type        = list(string)
  default     = []
  sensitive   = true

  validation {
    condition     = !var.check_tokens || length(var.signing_secrets) > 0
    error_message = "With check_tokens, give at least one signing secret; without one every request would be refused."
  }
  validation {
    condition     = alltrue([for secret in var.signing_secrets : can(regex("^[!#-+\\x2d-\\x5b\\x5d-\\x7e]{16,}$", secret))])
    error_message = "A signing secret is 16 or more printable characters without blanks, commas, quotes and backslashes: the rule holds it between quotes."
  }
}

variable "link_life" {
  description = "Seconds for which a link is valid at the edge, counted from its timestamp. FIRSTVIEW_LINK_LIFE, in seconds."
  type        = number
  default     = 86400

  validation {
    condition     = var.link_life >= 1 && floor(var.link_life) == var.link_life
    error_message = "A whole number of seconds."
  }
}
