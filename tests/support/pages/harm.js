document.documentElement.setAttribute('data-harmed', 'yes')
