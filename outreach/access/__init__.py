"""Who may do what over the API, how often, and who did it: tokens, scopes, roles, the limit of requests, the trail."""
